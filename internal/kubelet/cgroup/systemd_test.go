// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/systemd"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// TestSlices has the machine's systemd keep the tree: its limits hold when
// systemd reads its units anew, and a pod leaves no unit.
func TestSlices(t *testing.T) {
	if !systemd.IsRunningSystemd() || !cgroups.IsCgroup2UnifiedMode() {
		t.Skip("systemd does not run here, or not with version 2")
	}
	systemctl := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("systemctl", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("systemctl %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	tree, err := Open(Config{Root: "/kaji-test", Systemd: true, PodPids: 100, Quota: true,
		Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1Gi")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { systemctl("stop", "kaji_test.slice") })
	if err := errors.Join(tree.Setup(), tree.Bound()); err != nil {
		t.Fatal(err)
	}
	p := pod()
	if err := tree.Ensure(p, true); err != nil {
		t.Fatal(err)
	}
	top := "/sys/fs/cgroup/kaji_test.slice/kaji_test-kubepods.slice"
	own := filepath.Join(top, "kaji_test-kubepods-burstable.slice", "kaji_test-kubepods-burstable-pod1234_56.slice")
	check := func(when string, want map[string]string) {
		t.Helper()
		for file, value := range want {
			b, err := os.ReadFile(file)
			if got := strings.TrimSpace(string(b)); err != nil || got != value {
				t.Errorf("%s: %s is %q (%v), want %q", when, file, got, err, value)
			}
		}
	}
	want := map[string]string{own + "/memory.max": "134217728", own + "/cpu.max": "50000 100000", own + "/cpu.weight": "10", own + "/pids.max": "100",
		top + "/memory.max": "1073741824", top + "/cpu.weight": "79"}
	check("made", want)
	systemctl("daemon-reload")
	check("units read anew", want)
	if got := systemctl("show", "-p", "MemoryMax", "--value", filepath.Base(own)); got != "134217728" {
		t.Errorf("systemd has %s for MemoryMax", got)
	}
	b, err := os.ReadFile(filepath.Join(top, "cgroup.controllers"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"cpu", "cpuset", "memory", "pids"} {
		if !strings.Contains(" "+string(b), " "+c) {
			t.Errorf("the top has the controllers %s, without %s", b, c)
		}
	}
	p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
	if err := tree.Ensure(p, true); err != nil {
		t.Fatal(err)
	}
	want = map[string]string{own + "/memory.max": "max", own + "/cpu.max": "100000 100000"}
	check("changed", want)
	systemctl("daemon-reload")
	check("changed, units read anew", want)
	if !tree.Applied(p) {
		t.Errorf("not applied: %+v", tree.Read(p))
	}
	if err := tree.Remove(p); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(own); !os.IsNotExist(err) {
		t.Errorf("the pod's group is still there: %v", err)
	}
	if got := systemctl("show", "-p", "ActiveState", "--value", filepath.Base(own)); got != "inactive" {
		t.Errorf("the pod's slice is %s", got)
	}
}
