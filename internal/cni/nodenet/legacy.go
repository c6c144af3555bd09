// SPDX-License-Identifier: Apache-2.0

package nodenet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The old iptables' tables are not among those of nftables; the kernel tells about
// them by socket options. What follows is of its headers ip_tables.h and x_tables.h.
const (
	optionInfo    = 64 // IPT_SO_GET_INFO, IP6T_SO_GET_INFO
	optionEntries = 65 // …_GET_ENTRIES
	nameSize      = 32
	hookForward   = 2
	verdictDrop   = -1 // -NF_DROP - 1
	targetHead    = 32
)

// legacyBlocked names the old iptables' chains FORWARD whose policy is to drop.
func legacyBlocked() ([]string, error) {
	var out []string
	for _, one := range []struct {
		names, tool   string
		family, level int
		entry         int // where an entry has the offset of its target
	}{
		{"/proc/thread-self/net/ip_tables_names", "iptables-legacy", unix.AF_INET, unix.SOL_IP, 88},
		{"/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy", unix.AF_INET6, unix.SOL_IPV6, 140},
	} {
		names, err := os.ReadFile(one.names)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !slices.Contains(strings.Fields(string(names)), "filter") {
			continue // asking would make the table
		}
		if err != nil {
			return nil, err
		}
		drops, err := policyDrops(one.family, one.level, one.entry)
		if err != nil {
			return nil, fmt.Errorf("reading the rules of %s: %w", one.tool, err)
		}
		if drops {
			out = append(out, one.tool+" FORWARD")
		}
	}
	return out, nil
}

// policyDrops says whether the policy of the chain FORWARD in the table filter is
// to drop.
func policyDrops(family, level, entry int) (bool, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	// name, valid hooks, five entries and five underflows by hook, number, size
	info := make([]byte, nameSize+4+5*4+5*4+4+4)
	copy(info, "filter")
	if err := getsockopt(fd, level, optionInfo, info); err != nil {
		return false, err
	}
	order := binary.NativeEndian
	size := int(order.Uint32(info[len(info)-4:]))
	policy := int(order.Uint32(info[nameSize+4+5*4+hookForward*4:]))
	const head = nameSize + 8 // name, size, filled up to eight bytes
	all := make([]byte, head+size)
	copy(all, "filter")
	order.PutUint32(all[nameSize:], uint32(size))
	if err := getsockopt(fd, level, optionEntries, all); err != nil {
		return false, err
	}
	rules := all[head:]
	if policy+entry+2 > len(rules) {
		return false, errors.New("the kernel's answer is too short")
	}
	target := policy + int(order.Uint16(rules[policy+entry:]))
	if target+targetHead+4 > len(rules) {
		return false, errors.New("the kernel's answer is too short")
	}
	return int32(order.Uint32(rules[target+targetHead:])) == verdictDrop, nil
}

func getsockopt(fd, level, option int, buf []byte) error {
	size := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
