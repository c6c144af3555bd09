// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// machine writes the host files of a machine below a temporary root.
func machine(t *testing.T, files map[string]string) Config {
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Config{Root: root, DataDir: root}
}

func TestFindings(t *testing.T) {
	good := map[string]string{
		"proc/filesystems":                        "nodev\tsysfs\n\text4\nnodev\toverlay\n",
		"sys/fs/cgroup/cgroup.controllers":        "cpuset cpu io memory pids\n",
		"proc/sys/net/ipv4/ip_forward":            "1\n",
		"proc/sys/net/netfilter/nf_conntrack_max": "100000\n",
		"proc/sys/fs/inotify/max_user_instances":  "8192\n",
		"proc/meminfo":                            "MemTotal: 2000000 kB\nMemAvailable: 1000000 kB\n",
	}
	for _, c := range []struct {
		name, file, content string
		more                map[string]string
		check               string
		want                Severity
	}{
		{name: "good machine", check: "cgroups", want: OK},
		{name: "no overlayfs", file: "proc/filesystems", content: "\text4\n", check: "file systems", want: Warning},
		{name: "overlayfs not loaded yet", file: "proc/filesystems", content: "\text4\n", more: map[string]string{
			"proc/sys/kernel/osrelease":              "6.1.0-50-amd64\n",
			"lib/modules/6.1.0-50-amd64/modules.dep": "kernel/fs/nls/nls_utf8.ko.xz:\nkernel/fs/overlayfs/overlay.ko.xz:\n",
		}, check: "file systems", want: OK},
		{name: "overlayfs of another kernel", file: "proc/filesystems", content: "\text4\n", more: map[string]string{
			"proc/sys/kernel/osrelease":              "6.1.0-49-amd64\n",
			"lib/modules/6.1.0-50-amd64/modules.dep": "kernel/fs/overlayfs/overlay.ko.xz:\n",
		}, check: "file systems", want: Warning},
		{name: "no memory controller", file: "sys/fs/cgroup/cgroup.controllers", content: "cpu pids\n", check: "cgroups", want: Fatal},
		{name: "no forwarding", file: "proc/sys/net/ipv4/ip_forward", content: "0\n", check: "forwarding", want: Warning},
		{name: "few connections", file: "proc/sys/net/netfilter/nf_conntrack_max", content: "4096\n", check: "conntrack", want: Warning},
		{name: "room for connections", file: "proc/sys/net/netfilter/nf_conntrack_count", content: "90\n", check: "conntrack", want: OK},
		{name: "no room for connections", file: "proc/sys/net/netfilter/nf_conntrack_count", content: "95000\n", check: "conntrack", want: Warning},
		{name: "IPv6 off", file: "proc/sys/net/ipv6/conf/all/disable_ipv6", content: "1\n", check: "IPv6", want: OK},
		{name: "few inotify instances", file: "proc/sys/fs/inotify/max_user_instances", content: "128\n", check: "inotify", want: Warning},
		{name: "little memory", file: "proc/meminfo", content: "MemAvailable: 1000 kB\n", check: "memory", want: Warning},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{}
			for k, v := range good {
				files[k] = v
			}
			maps.Copy(files, c.more)
			if c.file != "" {
				files[c.file] = c.content
			}
			for _, f := range Run(machine(t, files)) {
				if f.Check != c.check {
					continue
				}
				if f.Severity != c.want {
					t.Fatalf("got %v: %s", f.Severity, f.Detail)
				}
				if f.Severity != OK && f.Remedy == "" {
					t.Fatal("a finding without a remedy")
				}
				return
			}
			t.Fatalf("no finding of check %q", c.check)
		})
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	us := fmt.Sprintf("in use by %s, process %d", filepath.Base(os.Args[0]), os.Getpid())
	for _, beside := range []bool{false, true} { // this program is not called kaji
		err = Err(Run(Config{Ports: []int{port}, Beside: beside}))
		if err == nil || !strings.Contains(err.Error(), us) {
			t.Errorf("got %v, want %q in it", err, us)
		}
	}
}

// Networks that share the cluster's addresses are a warning with their names.
func TestOverlap(t *testing.T) {
	c := Config{Overlapping: func() ([]string, error) { return []string{"10.0.0.0/8 by tun0"}, nil }}
	if f := ranges(c); f.Severity != Warning || !strings.Contains(f.Detail, "10.0.0.0/8 by tun0") || f.Remedy == "" {
		t.Errorf("%+v", f)
	}
	c.Overlapping = func() ([]string, error) { return nil, nil }
	if f := ranges(c); f.Severity != OK {
		t.Errorf("%+v", f)
	}
}

// A firewall that drops what is forwarded is a warning with the chain's name; no
// nftables at all is a problem.
func TestFirewall(t *testing.T) {
	c := Config{Blocked: func() ([]string, error) { return []string{"filter FORWARD"}, nil }}
	if f := firewall(c); f.Severity != Warning || !strings.Contains(f.Detail, "filter FORWARD") || f.Remedy == "" {
		t.Errorf("%+v", f)
	}
	c.Blocked = func() ([]string, error) { return nil, os.ErrPermission }
	if f := firewall(c); f.Severity != Fatal {
		t.Errorf("%+v", f)
	}
}
