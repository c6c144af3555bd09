// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"kaji/test/machine"
)

// traces lists what is on the machine, a line a thing: of its own network all;
// of what it shares with others what bears its cluster's name.
func traces(t *testing.T, m *machine.Machine) []string {
	t.Helper()
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if err := m.Do(func() error { return network(add) }); err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(m.Must(t, "nft", "list", "ruleset"), "\n") {
		if strings.HasPrefix(l, "table") {
			add("rules: %s", l)
		}
	}
	processes(t, m, add)
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(string(data), "\n") {
		if fields := strings.Fields(l); len(fields) > 4 && (strings.Contains(l, m.Name) || strings.Contains(l, m.Home)) {
			add("mount: %s", fields[4])
		}
	}
	files(m, add)
	slices.Sort(out)
	return out
}

func network(add func(string, ...any)) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		add("link: %s", l.Attrs().Name)
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			add("address: %s on %s", a.IPNet, l.Attrs().Name)
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, r := range routes {
		add("route: %s", r)
	}
	rules, err := netlink.RuleList(netlink.FAMILY_V4)
	for _, r := range rules {
		add("rule: %s", r)
	}
	return err
}

// processes are those that were started on the machine, kaji's and containers'.
func processes(t *testing.T, m *machine.Machine, add func(string, ...any)) {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		group, _ := os.ReadFile(filepath.Join(p, "cgroup")) // it may end meanwhile
		command, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		env, _ := os.ReadFile(filepath.Join(p, "environ"))
		if bytes.Contains(group, []byte("/kaji-"+m.Name)) || bytes.Contains(command, []byte(m.Name)) || bytes.Contains(env, []byte("KAJI_NAME="+m.Name)) {
			if stat, _ := os.ReadFile(filepath.Join(p, "stat")); bytes.Contains(stat, []byte(") Z ")) {
				continue // it has ended; the machine's init is to bury it
			}
			add("process: %s", bytes.ReplaceAll(command, []byte{0}, []byte{' '}))
		}
	}
}

func files(m *machine.Machine, add func(string, ...any)) {
	for _, dir := range []string{"/var/lib/kaji", "/run/kaji", "/run/netns", "/sys/fs/cgroup", "/sys/fs/cgroup/*", m.Home, filepath.Join(m.Home, ".kube")} {
		found, _ := filepath.Glob(filepath.Join(dir, "*")) // the patterns are good
		hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
		for _, f := range append(found, hidden...) {
			if strings.Contains(f, m.Name) || strings.HasPrefix(f, m.Home) {
				add("file: %s", f)
			}
		}
	}
}
