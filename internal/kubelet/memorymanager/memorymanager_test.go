// SPDX-License-Identifier: Apache-2.0

package memorymanager

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	configv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"

	"kaji/internal/kubelet/hardware"
	"kaji/internal/kubelet/topologymanager"
)

// config is that of a machine of two nodes of 4 GiB, of which 512 MiB are kept
// from pods and 256 MiB, on the second one, are huge pages.
func config(t *testing.T, dir string) Config {
	return Config{Policy: Static, Path: filepath.Join(dir, "memory_manager_state"), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Layout:       &hardware.Layout{Nodes: []hardware.Node{{ID: 0, Memory: 4 << 30}, {ID: 1, Memory: 4 << 30, HugePages: map[uint64]uint64{2 << 20: 256 << 20}}}},
		Reserved:     []configv1beta1.MemoryReservation{{NumaNode: 0, Limits: memoryOf("512Mi")}},
		NodeReserved: corev1.ResourceList{"memory": resource.MustParse("512Mi"), "cpu": resource.MustParse("1"), "ephemeral-storage": resource.MustParse("1Gi")}}
}

func memoryOf(text string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(text)}
}

func manager(t *testing.T, dir string) *Manager {
	t.Helper()
	m, err := New(config(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// guaranteed is a pod whose containers ask for memory: "name=1Gi", with ~ before
// it for an init container and + for a sidecar.
func guaranteed(name string, containers ...string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name)}}
	for _, text := range containers {
		id, memory, _ := strings.Cut(text, "=")
		memory, huge, _ := strings.Cut(memory, "/")
		list := memoryOf(memory)
		list[corev1.ResourceCPU] = resource.MustParse("1")
		if huge != "" {
			list["hugepages-2Mi"] = resource.MustParse(huge)
		}
		c := corev1.Container{Name: strings.Trim(id, "~+"), Resources: corev1.ResourceRequirements{Requests: list, Limits: list}}
		switch id[0] {
		case '+':
			c.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
			fallthrough
		case '~':
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
		default:
			pod.Spec.Containers = append(pod.Spec.Containers, c)
		}
	}
	return pod
}

// admit allocates for all containers, as the policy none of the topology manager.
func admit(t *testing.T, m *Manager, pod *corev1.Pod) error {
	t.Helper()
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if err := m.Allocate(t.Context(), pod, &list[i], topologymanager.Hint{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// left is the free memory of both nodes in MiB.
func left(m *Manager) string {
	return fmt.Sprint(m.state.Machine[0].MemoryMap["memory"].Free>>20, " ", m.state.Machine[1].MemoryMap["memory"].Free>>20)
}

// TestAllocate gives memory from one node where that will do and from two
// otherwise, never both ways from one node, and takes it back.
func TestAllocate(t *testing.T) {
	dir := t.TempDir()
	m := manager(t, dir)
	if got := left(m); got != "3584 3840" {
		t.Fatalf("at first %s are free", got)
	}
	step := func(pod *corev1.Pod, want, nodes, free string) {
		t.Helper()
		err := admit(t, m, pod)
		if text := fmt.Sprint(err); text != want {
			t.Errorf("%s: %s, want %s", pod.Name, text, want)
		}
		if got := m.Starts(pod, &pod.Spec.Containers[0]); got != nodes {
			t.Errorf("%s: nodes %q, want %q", pod.Name, got, nodes)
		}
		if got := left(m); got != free {
			t.Errorf("after %s %s are free, want %s", pod.Name, got, free)
		}
		m = manager(t, dir) // what was given is found again
		if got := left(m); got != free {
			t.Errorf("after a restart %s are free, want %s", got, free)
		}
	}
	const none = "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available"
	step(guaranteed("a", "c=2Gi"), "<nil>", "0", "1536 3840")
	step(guaranteed("b", "c=2Gi/64Mi"), "<nil>", "1", "1536 1792")
	step(guaranteed("c", "c=3Gi"), none, "", "1536 1792") // both nodes give memory alone
	burstable := guaranteed("d", "c=1Gi")
	burstable.Spec.Containers[0].Resources.Limits = nil
	step(burstable, "<nil>", "", "1536 1792")
	m.Release("a")
	m.Release("b")
	step(guaranteed("e", "c=5Gi"), "<nil>", "0,1", "0 2304")
	step(guaranteed("f", "c=1Gi"), "<nil>", "0,1", "0 1280") // one would do, but both are in a group
	step(guaranteed("g", "c=1Gi"), "<nil>", "0,1", "0 256")
	step(guaranteed("h", "c=16Gi"), none, "", "0 256")
	m.Keep(func(uid types.UID) bool { return uid == "g" })
	if got := left(m); got != "3584 2816" {
		t.Errorf("at the end %s are free", got)
	}
}

// TestInitContainers leave their memory to the containers after them, sidecars
// keep theirs.
func TestInitContainers(t *testing.T) {
	m := manager(t, t.TempDir())
	pod := guaranteed("p", "~first=1Gi", "+beside=512Mi", "~second=2Gi", "c=1536Mi", "d=256Mi")
	if err := admit(t, m, pod); err != nil {
		t.Fatal(err)
	}
	// beside has 512 MiB of the first one's gigabyte; second adds 1.5 GiB to what
	// is left of it, and c and d run within its two.
	if got := left(m); got != "1024 3840" {
		t.Errorf("%s are free, want 1024 3840", got)
	}
	for name, want := range map[string]uint64{"first": 0, "beside": 512, "second": 256, "c": 1536, "d": 256} {
		if got := m.Blocks(pod.UID, name); len(got) != 1 || got[0].Size>>20 != want {
			t.Errorf("%s has %+v, want %d MiB", name, got, want)
		}
	}
	m.Starts(pod, &pod.Spec.Containers[0])
	if got := left(m); got != "1280 3840" || m.Blocks(pod.UID, "second") != nil || m.Blocks(pod.UID, "beside") == nil {
		t.Errorf("when the init containers have ended %s are free", got)
	}
	m.Release(pod.UID)
	if got := left(m); got != "3584 3840" {
		t.Errorf("at the end %s are free", got)
	}
}

// TestHints tells the topology manager where memory is.
func TestHints(t *testing.T) {
	m := manager(t, t.TempDir())
	show := func(pod *corev1.Pod, c *corev1.Container) string { return fmt.Sprint(m.Hints(pod, c)) }
	small, large, huge := guaranteed("a", "c=1Gi"), guaranteed("b", "c=4Gi"), guaranteed("c", "c=1Gi/2Mi")
	for _, c := range []struct {
		pod  *corev1.Pod
		want string
	}{
		{small, "map[memory:[{1 true} {2 true} {3 false}]]"},
		{large, "map[memory:[{3 true}]]"},
		{huge, "map[hugepages-2Mi:[{2 true} {3 false}] memory:[{2 true} {3 false}]]"},
		{guaranteed("d", "c=100Gi"), "map[]"},
		{&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}, "map[]"},
	} {
		if got := show(c.pod, &c.pod.Spec.Containers[0]); got != c.want {
			t.Errorf("%s: %s, want %s", c.pod.Name, got, c.want)
		}
		if got := show(c.pod, nil); got != c.want {
			t.Errorf("%s as a whole: %s, want %s", c.pod.Name, got, c.want)
		}
	}
	if err := m.Allocate(t.Context(), small, &small.Spec.Containers[0], topologymanager.Hint{Affinity: 2, Preferred: true}); err != nil {
		t.Fatal(err)
	}
	if got, want := show(small, &small.Spec.Containers[0]), "map[memory:[{2 true}]]"; got != want {
		t.Errorf("of what was given: %s, want %s", got, want)
	}
	// A hint that is too small is extended, but not against the policy.
	if err := m.Allocate(t.Context(), large, &large.Spec.Containers[0], topologymanager.Hint{Affinity: 1, Preferred: true}); err == nil ||
		err.Error() != "[memorymanager] failed to find NUMA nodes to extend the current topology hint" {
		t.Errorf("4 GiB from node 0: %v", err)
	}
	m.Release(small.UID)
	if err := m.Allocate(t.Context(), large, &large.Spec.Containers[0], topologymanager.Hint{Affinity: 1}); err != nil || m.Starts(large, &large.Spec.Containers[0]) != "0,1" {
		t.Errorf("4 GiB near node 0: %v, from %s", err, m.Starts(large, &large.Spec.Containers[0]))
	}
}

// TestRefused says what is wrong with configurations and files.
func TestRefused(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"":                    func(c *Config) { c.Policy = None; c.Reserved = nil },
		`unknown policy: "x"`: func(c *Config) { c.Policy = "x" },
		`policy "BestEffort" is not available for platform "linux"`:                                                      func(c *Config) { c.Policy = "BestEffort" },
		`the total amount "0" of type "memory" is not equal to the value "512Mi" determined by Node Allocatable feature`: func(c *Config) { c.Reserved = nil },
		"[memorymanager] you should specify the system reserved memory":                                                  func(c *Config) { c.Reserved, c.NodeReserved = nil, nil },
		"the reserved memory configuration references a NUMA node 7 that does not exist on this machine": func(c *Config) {
			c.Reserved = append(c.Reserved, configv1beta1.MemoryReservation{NumaNode: 7, Limits: memoryOf("1Mi")})
		},
		`could not restore state from checkpoint: [memorymanager] configured policy "Static" differs from state checkpoint policy "None"`: func(c *Config) {
			write(t, c.Path, `{"policyName":"None","machineState":{},"checksum":0}`)
		},
		"could not restore state from checkpoint: ": func(c *Config) { write(t, c.Path, `{"policyName":"Static","data":"{}","dataChecksum":1}`) },
		"[memorymanager] machine state can not be empty when it has memory assignments": func(c *Config) {
			write(t, c.Path, `{"policyName":"Static","machineState":{},"entries":{"p":{"c":[]}},"checksum":0}`)
		},
		"[memorymanager] the expected machine state is different from the real one": func(c *Config) {
			manager(t, filepath.Dir(c.Path))
			c.Layout.Nodes[0].Memory += 1 << 20
		},
	} {
		c := config(t, t.TempDir())
		change(&c)
		if _, err := New(c); want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Containers that are to get memory of single nodes are counted, and those that do not.
func TestPinned(t *testing.T) {
	c := config(t, t.TempDir())
	pins, failures := 0, 0
	c.Pinned = func(err error) {
		pins++
		if err != nil {
			failures++
		}
	}
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	for memory, fails := range map[string]bool{"1Gi": false, "100Gi": true} {
		list := corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse(memory)}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(memory)}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: list, Limits: list}}}}}
		if err := m.Allocate(t.Context(), pod, &pod.Spec.Containers[0], topologymanager.Hint{}); (err != nil) != fails {
			t.Errorf("%s: %v", memory, err)
		}
	}
	if pins != 2 || failures != 1 {
		t.Errorf("%d requests and %d failures were told, want 2 and 1", pins, failures)
	}
}
