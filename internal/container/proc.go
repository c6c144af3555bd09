// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"os"
	"strconv"
)

// startTime returns when a process started, in clock ticks since boot; zero
// when there is none or only a zombie.
func startTime(pid int) uint64 {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything; fields follow the last one.
	fields := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
	if len(fields) < 20 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return 0
	}
	start, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return 0
	}
	return start
}

// ownOOMScoreAdj is the least score that this process may give without
// CAP_SYS_RESOURCE.
func ownOOMScoreAdj() int {
	raw, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(raw)))
	if err != nil {
		return 0
	}
	return n
}
