// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func portFree(port int, beside bool) Finding {
	name := fmt.Sprintf("port %d", port)
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err == nil {
		l.Close()
		return Finding{Check: name, Detail: "free"}
	}
	by, ours := listener(port)
	if ours && beside {
		return Finding{Check: name, Detail: "in use" + by}
	}
	return Finding{name, Fatal, fmt.Sprintf("TCP port %d is in use%s", port, by),
		fmt.Sprintf("stop what listens there (`ss -ltnp 'sport = :%d'` names it), or choose another port", port)}
}

// listener describes the process that listens on a port of this network
// namespace, and says whether it is a kaji. It is empty where none is found:
// it may have ended, or be out of sight.
func listener(port int) (by string, kaji bool) {
	sockets := listening(port)
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || !slices.Contains(sockets, target) {
			continue
		}
		process := filepath.Dir(filepath.Dir(fd))
		command, err := os.ReadFile(filepath.Join(process, "cmdline"))
		if err != nil {
			continue
		}
		program, _, _ := strings.Cut(string(command), "\x00")
		program = filepath.Base(program)
		return fmt.Sprintf(" by %s, process %s", program, filepath.Base(process)), program == "kaji"
	}
	return "", false
}

// listening returns the sockets that listen on a port, as links to descriptors
// name them.
func listening(port int) (sockets []string) {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			// sl, local address, remote address, state (0A listens), ..., inode
			fields := strings.Fields(lines.Text())
			if len(fields) < 10 || fields[3] != "0A" {
				continue
			}
			_, hex, _ := strings.Cut(fields[1], ":")
			if n, err := strconv.ParseUint(hex, 16, 16); err == nil && int(n) == port {
				sockets = append(sockets, "socket:["+fields[9]+"]")
			}
		}
		_ = f.Close()
	}
	return sockets
}
