// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kaji/test/machine"
)

// After a reboot, which leaves nothing but the disk, `kaji up` brings the same
// cluster back: its pods run again under their names and UIDs, Services keep their
// addresses, volumes what was written.
func TestReboot(t *testing.T) {
	m := machine.New(t)
	m.Must(t, "kaji", "up", "--nodes=2")
	counter(t, m)
	m.Must(t, "kubectl", "apply", "-f", filepath.Join(m.Root, "examples", "08-statefulset.yaml"))
	m.Eventually(t, contains("condition met"), "kubectl", "wait", "--for=condition=Ready", "pod/counter", "pod/store-0", "pod/store-1", "--timeout=60s")
	m.Must(t, "kubectl", "exec", "store-0", "--", "sh", "-c", "echo kept > /www/word")
	const uids = `jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{"\n"}{end}`
	before := m.Must(t, "kubectl", "get", "pods,services,persistentvolumeclaims", "-A", "-o", uids)

	reboot(t, m)
	m.Must(t, "kaji", "up")
	m.Eventually(t, func(out string) bool {
		return strings.Count(out, "true") >= 2 && !strings.Contains(out, "false")
	}, "kubectl", "get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].ready}")
	if after := m.Must(t, "kubectl", "get", "pods,services,persistentvolumeclaims", "-A", "-o", uids); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
	count(t, m) // its Service answers at the address it had
	m.Eventually(t, contains("kept"), "kubectl", "exec", "store-0", "--", "cat", "/www/word")
	m.Must(t, "kaji", "down", "--purge")
}

// reboot takes from the machine what a reboot does: all processes at once, then
// mounts, control groups, links, rules and what lies in memory.
func reboot(t *testing.T, m *machine.Machine) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		pids := machineProcesses(m)
		if len(pids) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("processes %v do not end", pids)
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(mounts), "\n")
	slices.Reverse(lines)
	for _, l := range lines {
		if fields := strings.Fields(l); len(fields) > 4 && strings.Contains(fields[4], "/"+m.Name) {
			_ = unix.Unmount(fields[4], unix.MNT_DETACH) // one may have gone with another
		}
	}
	spaces, _ := filepath.Glob("/run/netns/kaji." + m.Name + ".*") // the pattern is good
	for _, file := range spaces {
		_ = unix.Unmount(file, unix.MNT_DETACH) // as above
		_ = os.Remove(file)
	}
	states, _ := filepath.Glob("/run/kaji/" + m.Name + "*")
	for _, dir := range states {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
	removeControlGroups(m)
	if err := m.Do(freshNetwork); err != nil {
		t.Fatal(err)
	}
	m.Must(t, "nft", "flush", "ruleset")
}

// machineProcesses are those of the cluster and of its containers.
func machineProcesses(m *machine.Machine) []int {
	all, _ := filepath.Glob("/proc/[0-9]*")
	var out []int
	for _, p := range all {
		group, _ := os.ReadFile(filepath.Join(p, "cgroup")) // it may end meanwhile
		env, _ := os.ReadFile(filepath.Join(p, "environ"))
		stat, _ := os.ReadFile(filepath.Join(p, "stat"))
		if !strings.Contains(string(group), "/kaji-"+m.Name) && !strings.Contains(string(env), "KAJI_NAME="+m.Name) || strings.Contains(string(stat), ") Z ") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(p)); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

func removeControlGroups(m *machine.Machine) {
	for _, pattern := range []string{"/sys/fs/cgroup/kaji-" + m.Name + "*", "/sys/fs/cgroup/*/kaji-" + m.Name + "*"} {
		tops, _ := filepath.Glob(pattern)
		for _, top := range tops {
			var dirs []string
			_ = filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			slices.Reverse(dirs)
			for _, d := range dirs {
				_ = os.Remove(d) // `kaji up` copes with what the kernel holds for a moment
			}
		}
	}
}

// freshNetwork leaves the links that every machine starts with.
func freshNetwork() error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		switch l.Attrs().Name {
		case "lo", "eth0", "outside":
		default:
			_ = netlink.LinkDel(l) // the other end takes it along
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	addrs, err := netlink.AddrList(lo, netlink.FAMILY_V4)
	for _, a := range addrs {
		if !a.IP.IsLoopback() {
			err = netlink.AddrDel(lo, &a)
		}
	}
	return err
}
