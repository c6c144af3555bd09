// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is what the node agent runs on.
type Machine struct {
	MachineID, SystemUUID, BootID string
	Kernel, OSImage, OS, Arch     string
	MilliCPU                      int64
	// Memory, Disk and Swap are bytes; Swap is zero where there is none.
	Memory, Disk, Swap int64
	// HugePages are bytes by page size, such as "2Mi".
	HugePages map[string]int64
	// InUserNamespace says that root here is not the machine's.
	InUserNamespace bool
}

// ReadMachine reads this machine; disk is a path on the file system of the
// node's ephemeral storage.
func ReadMachine(disk string) (Machine, error) {
	m := Machine{OS: runtime.GOOS, Arch: runtime.GOARCH, MilliCPU: int64(runtime.NumCPU()) * 1000, HugePages: map[string]int64{}}
	m.MachineID = line("/etc/machine-id", "/var/lib/dbus/machine-id")
	m.SystemUUID = line("/sys/class/dmi/id/product_uuid", "/proc/device-tree/vm,uuid", "/etc/machine-id")
	m.BootID = line("/proc/sys/kernel/random/boot_id")
	m.OSImage = osImage()
	m.InUserNamespace = inUserNamespace()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return m, fmt.Errorf("read the kernel's version: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(name.Release[:])
	memory, swap, err := memory()
	if err != nil {
		return m, err
	}
	m.Memory, m.Swap = memory, swap
	var fs unix.Statfs_t
	if err := unix.Statfs(disk, &fs); err != nil {
		return m, fmt.Errorf("read the size of the file system of %s: %w", disk, err)
	}
	m.Disk = int64(fs.Blocks) * fs.Bsize
	pools, err := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-*kB")
	if err != nil {
		return m, fmt.Errorf("find huge pages: %w", err)
	}
	for _, pool := range pools {
		size, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(pool), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		count, _ := strconv.ParseInt(line(filepath.Join(pool, "nr_hugepages")), 10, 64) // absent means none
		m.HugePages[pageSize(size)] = size * 1024 * count
	}
	return m, nil
}

// Reserved is the memory that huge pages keep from all else, in bytes.
func (m Machine) Reserved() (bytes uint64) {
	for _, pool := range m.HugePages {
		bytes += uint64(pool) //nolint:gosec // not negative
	}
	return bytes
}

func pageSize(kilobytes int64) string {
	if kilobytes >= 1<<20 {
		return fmt.Sprintf("%dGi", kilobytes>>20)
	}
	if kilobytes >= 1<<10 {
		return fmt.Sprintf("%dMi", kilobytes>>10)
	}
	return fmt.Sprintf("%dKi", kilobytes)
}

// line returns the first line of the first file that has one.
func line(paths ...string) string {
	for _, path := range paths {
		if b, err := os.ReadFile(path); err == nil {
			if s := strings.TrimSpace(string(b)); s != "" {
				return s
			}
		}
	}
	return ""
}

// inUserNamespace says whether some user of the machine has no number here.
func inUserNamespace() bool {
	fields := strings.Fields(line("/proc/self/uid_map"))
	return len(fields) == 3 && (fields[0] != "0" || fields[1] != "0" || fields[2] != "4294967295")
}

func osImage() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "Unknown"
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(value, `"'`)
		}
	}
	return "Unknown"
}

func memory() (total, swap int64, err error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, fmt.Errorf("read the size of memory: %w", err)
	}
	for l := range strings.Lines(string(b)) {
		fields := strings.Fields(l)
		if len(fields) < 2 {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "MemTotal:":
			total = n * 1024
		case "SwapTotal:":
			swap = n * 1024
		}
	}
	return total, swap, nil
}
