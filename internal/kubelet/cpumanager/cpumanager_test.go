// SPDX-License-Identifier: Apache-2.0

package cpumanager

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/cpuset"

	"kaji/internal/kubelet/cpumanager/state"
	"kaji/internal/kubelet/hardware"
	"kaji/internal/kubelet/topologymanager"
)

// machine has two sockets, each a NUMA node of four cores with two threads: core n
// has the processors n and n+8.
func machine() *hardware.Layout {
	l := &hardware.Layout{Nodes: []hardware.Node{{ID: 0}, {ID: 1}}}
	for id := range 16 {
		core := id % 8
		l.CPUs = append(l.CPUs, hardware.CPU{ID: id, Core: core, Socket: core / 4, Node: core / 4, Cache: core / 2 * 2})
	}
	return l
}

func TestTake(t *testing.T) {
	for name, c := range map[string]struct {
		free  string
		count int
		want  string
	}{
		"a whole node":                        {"0-15", 8, "0-3,8-11"},
		"whole cores":                         {"0-15", 4, "0-1,8-9"},
		"cores before threads":                {"0-15", 3, "0-1,8"},
		"the half of a core that is broken":   {"1-15", 1, "8"},
		"the node with less left":             {"0-15", 0, ""},
		"another node when one is half taken": {"2-3,10-11,4-7,12-15", 8, "4-7,12-15"},
	} {
		t.Run(name, func(t *testing.T) {
			free, err := cpuset.Parse(c.free)
			if err != nil {
				t.Fatal(err)
			}
			got, err := take(machine(), free, c.count, false)
			if err != nil || got.String() != c.want {
				t.Errorf("got %s, %v, want %s", got, err, c.want)
			}
		})
	}
	if _, err := take(machine(), cpuset.New(1), 2, false); err == nil || err.Error() != "not enough cpus available to satisfy request: requested=2, available=1" {
		t.Errorf("got %v", err)
	}
	even, err := spread(machine(), machine().All(), 12, 2, false)
	if err != nil || even.String() != "0-2,4-6,8-10,12-14" {
		t.Errorf("spread evenly: %s, %v", even, err)
	}
}

func guaranteed(uid, cpu string) *corev1.Pod {
	list := corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse("1Gi")}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid)}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: list, Limits: list}}}}}
}

func start(t *testing.T, path string, options map[string]string) *Manager {
	t.Helper()
	m, err := New(Config{Policy: Static, Options: options, Layout: machine(), Count: 2, Path: path, Changed: func() {}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Guaranteed pods get processors for themselves, which the others lose, across
// restarts, until they are over.
func TestStatic(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cpu_manager_state")
	m := start(t, path, nil)
	pins, failures := 0, 0
	m.cfg.Pinned = func(err error) {
		pins++
		if err != nil {
			failures++
		}
	}
	give := func(pod *corev1.Pod, from topologymanager.Mask) error {
		return m.Allocate(t.Context(), pod, &pod.Spec.Containers[0], topologymanager.Hint{Affinity: from})
	}
	if err := give(guaranteed("a", "4"), topologymanager.MaskOf(1)); err != nil {
		t.Fatal(err)
	}
	if err := give(guaranteed("fraction", "1500m"), 0); err != nil {
		t.Fatal(err)
	}
	look := func(shared string) {
		t.Helper()
		if a, other := m.Set("a", "c"), m.Set("fraction", "c"); a != "4-5,12-13" || other != shared {
			t.Errorf("a runs on %s, others on %s", a, other)
		}
	}
	look("0-3,6-11,14-15")
	if err := give(guaranteed("huge", "100"), 0); err == nil || pins != 2 || failures != 1 {
		t.Errorf("%v after %d requests and %d failures, want 2 and 1", err, pins, failures)
	}
	if near := m.Near(); len(near) != 2 || near[0] != 0 || near[1] != 4 {
		t.Errorf("processors are given near %v", near)
	}
	m = start(t, path, nil)
	look("0-3,6-11,14-15")
	if err := give(guaranteed("big", "12"), 0); err == nil || err.Error() != "not enough cpus available to satisfy request: requested=12, available=10" {
		t.Errorf("got %v", err)
	}
	pod := guaranteed("b", "6")
	hints := m.Hints(pod, &pod.Spec.Containers[0])["cpu"]
	if len(hints) != 2 || hints[0] != (topologymanager.Hint{Affinity: 1, Preferred: true}) || hints[1] != (topologymanager.Hint{Affinity: 3}) {
		t.Errorf("got hints %v", hints)
	}
	m.Keep(func(uid types.UID) bool { return uid != "a" })
	if got := m.Set("a", "c"); got != "0-15" {
		t.Errorf("after its end, a's processors are not shared: %s", got)
	}
}

// Whole cores only, where that is asked for.
func TestFullCores(t *testing.T) {
	m := start(t, filepath.Join(t.TempDir(), "s"), map[string]string{"full-pcpus-only": "true"})
	for cpu, want := range map[string]string{
		"3":  "SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2",
		"16": "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = 14, requested CPUs = 16, CPUs per core = 2",
	} {
		pod := guaranteed("a", cpu)
		err := m.Allocate(t.Context(), pod, &pod.Spec.Containers[0], topologymanager.Hint{})
		var r *topologymanager.Refusal
		if !errors.As(err, &r) || r.Reason != "SMTAlignmentError" || r.Message != want {
			t.Errorf("%s: got %v", cpu, err)
		}
	}
}

// The file is upstream's; one of another policy, or of another machine, is refused.
func TestState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	set := func(s string) cpuset.CPUSet {
		c, err := cpuset.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, s := range []state.State{{Policy: "none", Default: cpuset.New()},
		{Policy: "static", Default: set("7-9"), Entries: map[string]map[string]cpuset.CPUSet{"pod": {"container1": set("4-6"), "container2": set("1-3")}}}} {
		if err := state.Write(path, s); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		// The checksum is that of upstream's file on every node with the default policy.
		if err != nil || s.Policy == "none" && !strings.HasPrefix(string(text), `{"policyName":"none","defaultCpuSet":"","checksum":1353318690,`) {
			t.Errorf("got %s, %v", text, err)
		}
		if back, err := state.Read(path); err != nil || back.Policy != s.Policy || !back.Default.Equals(s.Default) || len(back.Entries) != len(s.Entries) {
			t.Errorf("got %v, %v", back, err)
		}
	}
	_, err := New(Config{Policy: Static, Layout: machine(), Count: 1, Path: path})
	if err == nil || !strings.Contains(err.Error(), "please drain this node and delete the CPU manager checkpoint file") {
		t.Errorf("got %v", err)
	}
}
