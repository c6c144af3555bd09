// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func pod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "1234-56"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a",
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
		}}}}}
}

// fake makes a tree of plain files that looks like the kernel's.
func fake(t *testing.T, unified bool) string {
	t.Helper()
	dir := t.TempDir()
	if unified {
		put(t, filepath.Join(dir, "cgroup.controllers"), "cpuset cpu io memory hugetlb pids")
		return dir
	}
	for _, c := range []string{"cpu", "cpuacct", "cpuset", "memory", "pids", "systemd"} {
		if err := os.MkdirAll(filepath.Join(dir, c), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(dir, "cpuset/cpuset.cpus"), "0-1")
	put(t, filepath.Join(dir, "cpuset/cpuset.mems"), "0")
	return dir
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Names, limits and what is read back of them, on both versions and with both drivers.
func TestTree(t *testing.T) {
	for name, row := range map[string]struct {
		unified, systemd bool
		root             string
		parent, dir      string
		files            map[string]string
	}{
		"v1, cgroupfs": {false, false, "/", "/kubepods/burstable/pod1234-56", "kubepods/burstable/pod1234-56", map[string]string{
			"cpu:cpu.shares": "256", "cpu:cpu.cfs_quota_us": "50000", "cpu:cpu.cfs_period_us": "100000", "memory:memory.limit_in_bytes": "134217728", "pids:pids.max": "100"}},
		"v1, systemd": {false, true, "/", "kubepods-burstable-pod1234_56.slice",
			"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1234_56.slice", map[string]string{"cpu:cpu.shares": "256"}},
		"v2, cgroupfs": {true, false, "/", "/kubepods/burstable/pod1234-56", "kubepods/burstable/pod1234-56", map[string]string{
			":cpu.weight": "10", ":cpu.max": "50000 100000", ":memory.max": "134217728", ":pids.max": "100"}},
		"v2, systemd": {true, true, "/", "kubepods-burstable-pod1234_56.slice",
			"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1234_56.slice", map[string]string{":memory.max": "134217728"}},
		"v2, systemd, below a root": {true, true, "/one-two/three", "one_two-three-kubepods-burstable-pod1234_56.slice",
			"one_two.slice/one_two-three.slice/one_two-three-kubepods.slice/one_two-three-kubepods-burstable.slice/one_two-three-kubepods-burstable-pod1234_56.slice",
			map[string]string{":memory.max": "134217728"}},
	} {
		mount := fake(t, row.unified)
		tree, err := Open(Config{Mount: mount, Root: row.root, Systemd: row.systemd, PodPids: 100, Quota: true})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if tree.Unified() != row.unified || tree.Parent(pod()) != row.parent {
			t.Errorf("%s: version 2 is %v, the parent %s", name, tree.Unified(), tree.Parent(pod()))
		}
		if row.unified { // controllers are handed down by the kernel
			at := mount
			for _, part := range strings.Split(row.dir, "/") {
				at = filepath.Join(at, part)
				if err := os.MkdirAll(at, 0o755); err != nil {
					t.Fatal(err)
				}
				put(t, filepath.Join(at, "cgroup.controllers"), "cpu memory pids")
			}
		}
		if got := tree.Read(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "other"}}); got != nil {
			t.Errorf("%s: a pod without a group has %+v", name, got)
		}
		if err := tree.Ensure(pod(), true); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for file, want := range row.files {
			controller, base, _ := strings.Cut(file, ":")
			b, err := os.ReadFile(filepath.Join(mount, controller, row.dir, base))
			if err != nil || strings.TrimSpace(string(b)) != want {
				t.Errorf("%s: %s is %q (%v), want %q", name, file, b, err, want)
			}
		}
		bigger := pod()
		bigger.Spec.Containers[0].Resources.Limits[corev1.ResourceMemory] = resource.MustParse("1Gi")
		if !tree.Applied(pod()) || tree.Applied(bigger) {
			t.Errorf("%s: the limits are applied: %v, others: %v", name, tree.Applied(pod()), tree.Applied(bigger))
		}
		if got := tree.Read(pod()); got == nil || got.Shares != 256 || got.Quota != 50000 || got.Period != 100000 || got.Memory != 128<<20 {
			t.Errorf("%s: read %+v", name, got)
		}
	}
}

// A shorter period makes the quota of a pod shorter in the same measure.
func TestQuotaPeriod(t *testing.T) {
	tree, err := Open(Config{Mount: fake(t, false), Root: "/", Quota: true, QuotaPeriod: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Ensure(pod(), true); err != nil {
		t.Fatal(err)
	}
	if got := tree.Read(pod()); got == nil || got.Quota != 25000 || got.Period != 50000 {
		t.Errorf("read %+v", got)
	}
}

// All pods together, and groups that the node keeps resources for, are bounded
// on both versions.
func TestBounds(t *testing.T) {
	for name, row := range map[string]struct {
		unified, systemd bool
		pods, other      string
		files            map[string]string
	}{
		"v1, cgroupfs": {false, false, "kubepods", "a/b", map[string]string{"cpu:cpu.shares": "1536", "memory:memory.limit_in_bytes": "1073741824", "pids:pids.max": "900"}},
		"v2, cgroupfs": {true, false, "kubepods", "a/b", map[string]string{":cpu.weight": "59", ":memory.max": "1073741824", ":pids.max": "900"}},
		"v2, systemd":  {true, true, "kubepods.slice", "a.slice/a-b.slice", map[string]string{":cpu.weight": "59", ":memory.max": "1073741824", ":pids.max": "900"}},
	} {
		mount := fake(t, row.unified)
		given := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m"), corev1.ResourceMemory: resource.MustParse("1Gi"), PIDs: resource.MustParse("900")}
		tree, err := Open(Config{Mount: mount, Root: "/", Systemd: row.systemd, Allocatable: given})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		group := map[bool]string{false: "/a/b", true: "/a-b.slice"}[row.systemd]
		if err := tree.Reserve(group, given, false); err == nil {
			t.Errorf("%s: a group that is not there is limited", name)
		}
		for file := range row.files {
			controller, _, _ := strings.Cut(file, ":")
			for _, dir := range []string{row.pods, row.other} {
				at := filepath.Join(mount, controller, dir)
				if err := os.MkdirAll(at, 0o755); err != nil {
					t.Fatal(err)
				}
				put(t, filepath.Join(at, "cgroup.controllers"), "cpu memory pids")
				put(t, filepath.Join(filepath.Dir(at), "cgroup.controllers"), "cpu memory pids")
			}
		}
		check := func(dir string, files map[string]string) {
			t.Helper()
			for file, want := range files {
				controller, base, _ := strings.Cut(file, ":")
				b, err := os.ReadFile(filepath.Join(mount, controller, dir, base))
				if want == "" && err != nil {
					continue
				}
				if err != nil || strings.TrimSpace(string(b)) != want {
					t.Errorf("%s: %s of %s is %q (%v), want %q", name, file, dir, b, err, want)
				}
			}
		}
		if err := tree.Setup(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := tree.Bound(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		check(row.pods, row.files)
		put(t, filepath.Join(mount, map[bool]string{false: "memory"}[row.unified], row.pods, map[bool]string{false: "memory.usage_in_bytes", true: "memory.current"}[row.unified]), "5000\n")
		put(t, filepath.Join(mount, map[bool]string{false: "memory"}[row.unified], row.pods, "memory.stat"), "anon 1\ninactive_file 2000\ntotal_inactive_file 2000\n")
		if bound, used, ok := tree.Memory(); bound != 1<<30 || used != 3000 || !ok {
			t.Errorf("%s: pods have %d of %d (%v)", name, used, bound, ok)
		}
		if err := tree.Reserve(group, given, true); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		weight := map[string]string{}
		for file, want := range row.files {
			if !strings.Contains(file, ":cpu.") {
				want = ""
			}
			weight[file] = want
		}
		check(row.other, weight)
		if err := tree.Reserve(group, given, false); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		check(row.other, row.files)
	}
}

// Huge pages: a pod has those that it requests, all pods those of the machine, and
// those in between any number; where the kernel does not count them nothing is written.
func TestHugePages(t *testing.T) {
	p := pod()
	p.Spec.Containers[0].Resources.Limits["hugepages-2Mi"] = resource.MustParse("8Mi")
	p.Spec.Containers[0].Resources.Requests["hugepages-2Mi"] = resource.MustParse("8Mi")
	for name, row := range map[string]struct {
		unified bool
		dir     string
		file    string
	}{"v1": {false, "hugetlb/", "limit_in_bytes"}, "v2": {true, "", "max"}} {
		mount := fake(t, row.unified)
		if err := os.MkdirAll(filepath.Join(mount, row.dir), 0o755); err != nil {
			t.Fatal(err)
		}
		tree, err := Open(Config{Mount: mount, Root: "/", HugePages: []string{"2MB", "1GB"},
			Allocatable: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi"), "hugepages-2Mi": resource.MustParse("64Mi")}})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, group := range []string{"kubepods", "kubepods/burstable", "kubepods/besteffort", "kubepods/burstable/pod1234-56"} {
			at := filepath.Join(mount, row.dir, group)
			if err := os.MkdirAll(at, 0o755); err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(at, "cgroup.controllers"), "hugetlb")
			for _, size := range []string{"2MB", "1GB"} {
				put(t, filepath.Join(at, "hugetlb."+size+"."+row.file), "7")
				put(t, filepath.Join(at, "hugetlb."+size+".rsvd."+row.file), "7")
			}
		}
		if err := errors.Join(tree.Setup(), tree.Bound(), tree.Ensure(p, true)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for group, want := range map[string][2]string{"kubepods": {"67108864", "0"}, "kubepods/burstable": {"4611686018427387904", "4611686018427387904"},
			"kubepods/besteffort": {"4611686018427387904", "4611686018427387904"}, "kubepods/burstable/pod1234-56": {"8388608", "0"}} {
			for i, size := range []string{"2MB", "1GB"} {
				for _, kind := range []string{".", ".rsvd."} {
					at := filepath.Join(mount, row.dir, group, "hugetlb."+size+kind+row.file)
					if b, err := os.ReadFile(at); err != nil || strings.TrimSpace(string(b)) != want[i] {
						t.Errorf("%s: %s is %s (%v), want %s", name, at, b, err, want[i])
					}
				}
			}
		}
	}
	mount := fake(t, false)
	tree, err := Open(Config{Mount: mount, Root: "/", HugePages: []string{"2MB"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := tree.PodLimits(p).HugePages; len(got) > 0 {
		t.Errorf("not counted: %v", got)
	}
}

// Burstable pods together weigh what they request, and with tiers of memory keep
// what they request, and guaranteed ones more so; pods have all CPUs of the machine.
func TestShare(t *testing.T) {
	guaranteed := pod()
	guaranteed.Spec.Containers[0].Resources.Requests = guaranteed.Spec.Containers[0].Resources.Limits
	for name, unified := range map[string]bool{"v1": false, "v2": true} {
		mount := fake(t, unified)
		tree, err := Open(Config{Mount: mount, Root: "/", Memory: MemoryQoS{Reserve: true, Throttle: 0.5}, Quota: true, Exclusive: func(p *corev1.Pod) bool { return p == guaranteed }})
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{"kubepods", "kubepods/burstable"} {
			for _, c := range []string{"", "cpu", "cpuset", "memory"} {
				if unified != (c == "") {
					continue
				}
				if err := os.MkdirAll(filepath.Join(mount, c, dir), 0o755); err != nil {
					t.Fatal(err)
				}
				put(t, filepath.Join(mount, c, dir, "cgroup.controllers"), "cpu cpuset memory")
			}
		}
		read := func(file string) string {
			controller, rest, _ := strings.Cut(file, ":")
			b, err := os.ReadFile(filepath.Join(mount, controller, rest))
			if err != nil {
				return err.Error()
			}
			return strings.TrimSpace(string(b))
		}
		if err := tree.Setup(); err != nil {
			t.Fatal(err)
		}
		if unified {
			put(t, filepath.Join(mount, "cpuset.cpus.effective"), "0-3\n")
		} else {
			put(t, filepath.Join(mount, "cpuset/cpuset.cpus"), "0-3\n") // two more than there were
		}
		if err := errors.Join(tree.Bound(), tree.Share([]*corev1.Pod{pod(), pod(), guaranteed, {}})); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"cpu:kubepods/burstable/cpu.shares": "512", "cpuset:kubepods/cpuset.cpus": "0-3"}
		if unified {
			want = map[string]string{":kubepods/burstable/cpu.weight": "20", ":kubepods/cpuset.cpus": "0-3", ":kubepods/memory.min": "268435456", ":kubepods/memory.low": "134217728",
				":kubepods/burstable/memory.low": "134217728"}
		}
		for file, value := range want {
			if got := read(file); got != value {
				t.Errorf("%s: %s is %s, want %s", name, file, got, value)
			}
		}
		if l := tree.PodLimits(guaranteed); l.Period != 0 || unified && l.Unified["memory.min"] != "134217728" {
			t.Errorf("%s: a pod with processors for itself: %+v", name, l)
		}
	}
}
