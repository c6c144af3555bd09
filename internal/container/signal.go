// SPDX-License-Identifier: Apache-2.0

package container

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// realtime names begin at SIGRTMIN, the first that C libraries leave free.
const sigRTMin, sigRTMax = 34, 64

// signalNumber reads a signal as images and the CRI write it: "SIGTERM",
// "TERM", "15", "SIGRTMIN+3", "SIGRTMINPLUS3"; zero for anything else.
func signalNumber(name string) unix.Signal {
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n <= sigRTMax {
		return unix.Signal(n)
	}
	name = "SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if n := unix.SignalNum(name); n != 0 {
		return n
	}
	name = strings.NewReplacer("PLUS", "+", "MINUS", "-").Replace(name)
	base, offset := 0, ""
	switch {
	case strings.HasPrefix(name, "SIGRTMIN"):
		base, offset = sigRTMin, strings.TrimPrefix(name, "SIGRTMIN")
	case strings.HasPrefix(name, "SIGRTMAX"):
		base, offset = sigRTMax, strings.TrimPrefix(name, "SIGRTMAX")
	default:
		return 0
	}
	n, err := strconv.Atoi(offset)
	if offset != "" && err != nil || base+n < sigRTMin || base+n > sigRTMax {
		return 0
	}
	return unix.Signal(base + n)
}

// stopSignalName is the signal in the words of the CRI, or empty.
func stopSignalName(s unix.Signal) string {
	switch n := int(s); {
	case n == sigRTMin:
		return "SIGRTMIN"
	case n == sigRTMax:
		return "SIGRTMAX"
	case n > sigRTMin && n <= sigRTMin+15:
		return "SIGRTMINPLUS" + strconv.Itoa(n-sigRTMin)
	case n > sigRTMin+15 && n < sigRTMax:
		return "SIGRTMAXMINUS" + strconv.Itoa(sigRTMax-n)
	}
	return unix.SignalName(s)
}
