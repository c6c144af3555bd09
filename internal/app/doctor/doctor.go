// SPDX-License-Identifier: Apache-2.0

// Package doctor looks at the machine and says what would get in a cluster's
// way, and how to mend it. `kaji doctor` prints all findings; `kaji up` refuses
// to start on the fatal ones. It changes nothing.
package doctor

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Severity grades a finding.
type Severity int

// The severities, in rising order.
const (
	OK Severity = iota
	Warning
	Fatal
)

// String returns the word that is printed.
func (s Severity) String() string { return [...]string{"ok", "warning", "problem"}[s] }

// Finding is the result of one check.
type Finding struct {
	Check    string
	Severity Severity
	// Detail says what was found; Remedy what to do about it.
	Detail, Remedy string
}

// Config says what the cluster will need.
type Config struct {
	// DataDir is where the cluster keeps its files; it need not exist.
	DataDir string
	// Ports are the TCP ports of the host it will listen on.
	Ports []int
	// Beside is true where a cluster that runs already is no problem: its ports
	// are in use as they should be.
	Beside bool
	// Blocked names the chains that drop what is forwarded; nil does not look.
	Blocked func() ([]string, error)
	// Overlapping names networks of this machine that share addresses with the
	// cluster's ranges; nil does not look.
	Overlapping func() ([]string, error)
	// Root is where the host's files are read, "/" unless a test says so.
	Root string
}

// Run makes all checks.
func Run(c Config) []Finding {
	if c.Root == "" {
		c.Root = "/"
	}
	findings := []Finding{root(), filesystems(c), cgroups(c), forwarding(c), firewall(c), ranges(c), conntrack(c), ipv6(c), inotify(c), disk(c), memory(c), clock()}
	for _, port := range c.Ports {
		findings = append(findings, portFree(port, c.Beside))
	}
	return findings
}

// Err returns the fatal findings as one error, or nil.
func Err(findings []Finding) error {
	var errs []error
	for _, f := range findings {
		if f.Severity == Fatal {
			errs = append(errs, fmt.Errorf("%s: %s", f.Detail, f.Remedy))
		}
	}
	return errors.Join(errs...)
}

func root() Finding {
	if os.Geteuid() != 0 {
		return Finding{"permissions", Fatal, "kaji starts containers and needs root", "run it with sudo"}
	}
	return Finding{Check: "permissions", Detail: "running as root"}
}

func filesystems(c Config) Finding {
	data, err := os.ReadFile(filepath.Join(c.Root, "proc/filesystems"))
	if err != nil {
		return Finding{"file systems", Warning, "the list of file systems cannot be read: " + err.Error(), "mount /proc"}
	}
	for _, line := range strings.Split(string(data), "\n") {
		if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == "overlay" {
			return Finding{Check: "file systems", Detail: "overlayfs is there"}
		}
	}
	if loadable(c, "overlay") {
		return Finding{Check: "file systems", Detail: "overlayfs is there, as a module that the first mount loads"}
	}
	return Finding{"file systems", Warning, "the kernel has no overlayfs: images are copied for each container, unless fuse-overlayfs is installed",
		"run `modprobe overlay`, use a kernel with CONFIG_OVERLAY_FS, or install fuse-overlayfs"}
}

// loadable says whether the running kernel's modules have the named one: the
// kernel asks for a file system's by itself.
func loadable(c Config, module string) bool {
	release, err := os.ReadFile(filepath.Join(c.Root, "proc/sys/kernel/osrelease"))
	if err != nil {
		return false
	}
	known, err := os.ReadFile(filepath.Join(c.Root, "lib/modules", strings.TrimSpace(string(release)), "modules.dep"))
	if err != nil {
		return false
	}
	for _, line := range strings.Split(string(known), "\n") { // kernel/fs/overlayfs/overlay.ko.xz: what it needs
		file, _, _ := strings.Cut(line, ":")
		if name, _, _ := strings.Cut(filepath.Base(file), "."); name == module {
			return true
		}
	}
	return false
}

func cgroups(c Config) Finding {
	base := filepath.Join(c.Root, "sys/fs/cgroup")
	if data, err := os.ReadFile(filepath.Join(base, "cgroup.controllers")); err == nil {
		for _, need := range []string{"cpu", "memory", "pids"} {
			if !strings.Contains(" "+strings.TrimSpace(string(data))+" ", " "+need+" ") {
				return Finding{"cgroups", Fatal, "the cgroup controller " + need + " is missing", "enable it on the kernel's command line (cgroup_enable=" + need + ")"}
			}
		}
		return Finding{Check: "cgroups", Detail: "cgroup v2"}
	}
	for _, need := range []string{"cpu", "memory", "pids", "devices"} {
		if _, err := os.Stat(filepath.Join(base, need)); err != nil {
			return Finding{"cgroups", Fatal, "the cgroup controller " + need + " is not mounted", "mount cgroup2 on /sys/fs/cgroup"}
		}
	}
	return Finding{Check: "cgroups", Detail: "cgroup v1"}
}

func forwarding(c Config) Finding {
	data, err := os.ReadFile(filepath.Join(c.Root, "proc/sys/net/ipv4/ip_forward"))
	if err == nil && strings.TrimSpace(string(data)) == "1" {
		return Finding{Check: "forwarding", Detail: "IPv4 forwarding is on"}
	}
	return Finding{"forwarding", Warning, "IPv4 forwarding is off", "kaji switches it on while it runs; set net.ipv4.ip_forward=1 in /etc/sysctl.d to keep it"}
}

// firewall looks for chains that keep pods from the world outside.
func firewall(c Config) Finding {
	if c.Blocked == nil {
		return Finding{Check: "firewall", Detail: "not looked at"}
	}
	chains, err := c.Blocked()
	if err != nil {
		return Finding{"firewall", Fatal, "the kernel's nftables cannot be used: " + err.Error(), "run `modprobe nf_tables`, or use a kernel with CONFIG_NF_TABLES"}
	}
	if len(chains) > 0 {
		return Finding{"firewall", Warning, "what is forwarded is dropped by " + strings.Join(chains, ", ") + ": pods may not reach the world outside",
			"let it pass, for example with `iptables -P FORWARD ACCEPT` or your firewall's setting for routed traffic"}
	}
	return Finding{Check: "firewall", Detail: "forwarded packets pass"}
}

// ranges looks for networks that pods could not reach, since the cluster gives
// their addresses to pods or Services.
func ranges(c Config) Finding {
	if c.Overlapping == nil {
		return Finding{Check: "addresses", Detail: "not looked at"}
	}
	networks, err := c.Overlapping()
	if err != nil {
		return Finding{"addresses", Warning, "the machine's networks cannot be read: " + err.Error(), "look at `ip route`"}
	}
	if len(networks) > 0 {
		return Finding{"addresses", Warning, "the ranges of pods and Services overlap networks of this machine (" + strings.Join(networks, ", ") + "), which a cluster hides",
			"choose others: `kaji up --cluster-cidr=… --service-cluster-ip-range=…`"}
	}
	return Finding{Check: "addresses", Detail: "no network overlaps the ranges of pods and Services"}
}

// conntrack looks at how many connections the kernel remembers, and whether room
// is left; without its files the module is loaded later, with a limit by the
// machine's memory.
func conntrack(c Config) Finding {
	const want = 32768
	data, err := os.ReadFile(filepath.Join(c.Root, "proc/sys/net/netfilter/nf_conntrack_max"))
	n, perr := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || perr != nil {
		return Finding{Check: "conntrack", Detail: "no limit found"}
	}
	if n < want {
		return Finding{"conntrack", Warning, fmt.Sprintf("the kernel remembers only %d connections", n), fmt.Sprintf("sysctl net.netfilter.nf_conntrack_max=%d", 4*want)}
	}
	data, err = os.ReadFile(filepath.Join(c.Root, "proc/sys/net/netfilter/nf_conntrack_count"))
	used, perr := strconv.Atoi(strings.TrimSpace(string(data)))
	if err == nil && perr == nil && used > n-n/10 {
		return Finding{"conntrack", Warning, fmt.Sprintf("the kernel remembers %d connections of at most %d: new ones get lost when it is full", used, n),
			fmt.Sprintf("sysctl net.netfilter.nf_conntrack_max=%d", 4*n)}
	}
	return Finding{Check: "conntrack", Detail: fmt.Sprintf("%d of %d connections", used, n)}
}

// ipv6 says whether ranges of that family can be given.
func ipv6(c Config) Finding {
	data, err := os.ReadFile(filepath.Join(c.Root, "proc/sys/net/ipv6/conf/all/disable_ipv6"))
	if err != nil || strings.TrimSpace(string(data)) == "1" {
		return Finding{Check: "IPv6", Detail: "off: ranges of pods and Services can be of IPv4 only"}
	}
	return Finding{Check: "IPv6", Detail: "on"}
}

func inotify(c Config) Finding {
	const want = 512
	data, err := os.ReadFile(filepath.Join(c.Root, "proc/sys/fs/inotify/max_user_instances"))
	n, perr := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || perr != nil {
		return Finding{Check: "inotify", Detail: "no limit found"}
	}
	if n < want {
		return Finding{"inotify", Warning, fmt.Sprintf("only %d inotify instances a user", n), fmt.Sprintf("sysctl fs.inotify.max_user_instances=%d", want)}
	}
	return Finding{Check: "inotify", Detail: fmt.Sprintf("%d instances a user", n)}
}

func disk(c Config) Finding {
	dir := c.DataDir
	if dir == "" {
		dir = c.Root
	}
	var stat syscall.Statfs_t
	for err := syscall.Statfs(dir, &stat); err != nil; err = syscall.Statfs(dir, &stat) {
		if dir == filepath.Dir(dir) {
			return Finding{"disk", Warning, "free space cannot be read: " + err.Error(), "check the data directory"}
		}
		dir = filepath.Dir(dir)
	}
	free := stat.Bavail * uint64(stat.Bsize)
	detail := fmt.Sprintf("%d MiB free for %s", free>>20, c.DataDir)
	switch {
	case free < 256<<20:
		return Finding{"disk", Fatal, detail, "free at least 256 MiB, or choose another place with --data-dir"}
	case free < 2<<30:
		return Finding{"disk", Warning, detail, "images and logs may fill it; 2 GiB is a good start"}
	}
	return Finding{Check: "disk", Detail: detail}
}

func memory(c Config) Finding {
	f, err := os.Open(filepath.Join(c.Root, "proc/meminfo"))
	if err != nil {
		return Finding{"memory", Warning, "free memory cannot be read: " + err.Error(), "mount /proc"}
	}
	defer f.Close()
	for scan := bufio.NewScanner(f); scan.Scan(); {
		fields := strings.Fields(scan.Text())
		if len(fields) < 2 || fields[0] != "MemAvailable:" {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err == nil && kib < 256<<10 {
			return Finding{"memory", Warning, fmt.Sprintf("only %d MiB of memory available", kib>>10), "close other programs; 256 MiB is the least for a small cluster"}
		}
		return Finding{Check: "memory", Detail: fmt.Sprintf("%d MiB available", kib>>10)}
	}
	return Finding{Check: "memory", Detail: "the kernel does not tell"}
}

func clock() Finding {
	if time.Now().Year() < 2024 {
		return Finding{"clock", Fatal, "the clock stands at " + time.Now().Format(time.DateOnly), "set it; certificates made now would be refused"}
	}
	return Finding{Check: "clock", Detail: time.Now().Format(time.RFC3339)}
}
