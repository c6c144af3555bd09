// SPDX-License-Identifier: Apache-2.0

package evict

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func pod(name string, request string, priority int32) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Priority: &priority, Containers: []corev1.Container{{Name: "c",
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(request)}}}}}}
}

// Pods over their requests go first, then the less important, then the larger.
func TestRank(t *testing.T) {
	within, over, important, larger := pod("within", "2Gi", 0), pod("over", "1Mi", 0), pod("important", "1Mi", 10), pod("larger", "1Mi", 0)
	use := map[*corev1.Pod]Use{within: {Memory: 1 << 30}, over: {Memory: 2 << 20}, important: {Memory: 1 << 30}, larger: {Memory: 3 << 20}}
	pods := []*corev1.Pod{within, over, important, larger}
	Rank(pods, use, MemoryAvailable)
	for i, want := range []*corev1.Pod{larger, over, important, within} {
		if pods[i] != want {
			t.Errorf("place %d: got %s, want %s", i, pods[i].Name, want.Name)
		}
	}
}

// A hard threshold evicts at once and is shown for a while after it is over.
func TestPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := uint64(50 << 20)
		evicted := make(chan string, 100)
		var ages []time.Duration
		victim := pod("victim", "1Mi", 0)
		m := New(Config{Thresholds: Defaults(), Logger: slog.New(slog.DiscardHandler), Changed: func() {},
			Observe: func(context.Context) (Observation, error) {
				return Observation{MemoryAvailable: {Available: left, Capacity: 8 << 30}}, nil
			},
			Pods: func() []*corev1.Pod { return []*corev1.Pod{victim} },
			Use: func(context.Context) (map[*corev1.Pod]Use, error) {
				time.Sleep(time.Second)
				return map[*corev1.Pod]Use{victim: {Memory: 1 << 30}}, nil
			},
			Aged: func(_ Signal, age time.Duration) { ages = append(ages, age) },
			Evict: func(_ *corev1.Pod, message string, _ time.Duration, _ Signal, _ map[string]string) {
				evicted <- message
			},
		})
		if err := m.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := <-evicted, "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. "; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if len(ages) != 1 || ages[0] != time.Second {
			t.Errorf("what the pod was ended for is %v old, want a second", ages)
		}
		left = 1 << 30
		if err := m.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !m.Pressure()[corev1.NodeMemoryPressure] {
			t.Error("pressure ended at once, want it to be shown for five minutes")
		}
		<-time.After(5*time.Minute + time.Second)
		if err := m.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if m.Pressure()[corev1.NodeMemoryPressure] {
			t.Error("pressure is still shown")
		}
		synctest.Wait()
	})
}

// Pods that have what all of them may have are evicted, by memory, though the
// node has more; soft thresholds are not those of all pods.
func TestAllocatable(t *testing.T) {
	thresholds := Allocatable([]Threshold{{Signal: MemoryAvailable, Quantity: 100 << 20}, {Signal: MemoryAvailable, Quantity: 1 << 30, Grace: time.Minute}, {Signal: PIDAvailable, Quantity: 5}})
	if len(thresholds) != 4 || thresholds[3] != (Threshold{Signal: AllocatableMemory, Quantity: 100 << 20}) {
		t.Fatalf("thresholds are %+v", thresholds)
	}
	within, over := pod("within", "2Gi", 0), pod("over", "1Mi", 0)
	var evicted []string
	m := New(Config{Thresholds: thresholds, Logger: slog.New(slog.DiscardHandler), Changed: func() {},
		Observe: func(context.Context) (Observation, error) {
			return Observation{MemoryAvailable: {Available: 6 << 30, Capacity: 8 << 30}, AllocatableMemory: {Available: 50 << 20, Capacity: 1 << 30}}, nil
		},
		Pods: func() []*corev1.Pod { return []*corev1.Pod{within, over} },
		Use: func(context.Context) (map[*corev1.Pod]Use, error) {
			return map[*corev1.Pod]Use{within: {Memory: 1 << 30}, over: {Memory: 1<<20 + 1}}, nil
		},
		Reclaim: func(context.Context, Signal) { t.Error("disk space is reclaimed") },
		Evict: func(pod *corev1.Pod, message string, _ time.Duration, _ Signal, _ map[string]string) {
			evicted = append(evicted, pod.Name+": "+message)
		},
	})
	if err := m.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := "over: The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. "; len(evicted) != 1 || evicted[0] != want {
		t.Errorf("evicted %q, want %q", evicted, want)
	}
	if !m.Pressure()[corev1.NodeMemoryPressure] {
		t.Error("there is no pressure")
	}
}

// What was too little has to become more than too little by the minimum reclaim
// before it is enough again.
func TestMinimumReclaim(t *testing.T) {
	thresholds, err := Parse(map[string]string{"memory.available": "100Mi"}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if thresholds, err = WithMinimum(thresholds, map[string]string{"memory.available": "50Mi"}); err != nil {
		t.Fatal(err)
	}
	if _, err := WithMinimum(thresholds, map[string]string{"bogus": "1"}); err == nil {
		t.Error("a signal that does not exist was taken")
	}
	m := New(Config{Thresholds: thresholds})
	for i, row := range []struct {
		left uint64
		due  bool
	}{{120, false}, {90, true}, {120, true}, {149, true}, {151, false}, {120, false}} {
		due, _ := m.note(Observation{MemoryAvailable: {Available: row.left << 20, Capacity: 1 << 30}}, time.Now())
		if len(due) > 0 != row.due {
			t.Errorf("look %d with %d MiB left: %v, want %v", i, row.left, due, row.due)
		}
	}
}

// Where images have a file system of their own, pods are ranked by what they take
// of the one that is short.
func TestRankApart(t *testing.T) {
	pod := func(name string) *corev1.Pod { return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	layers, volumes := pod("layers"), pod("volumes")
	for _, apart := range []bool{false, true} {
		use := map[*corev1.Pod]Use{layers: {Disk: 100, Layers: 90, Inodes: 10, LayerInodes: 9, Apart: apart}, volumes: {Disk: 50, Inodes: 5, Apart: apart}}
		for signal, want := range map[Signal]*corev1.Pod{NodeFsAvailable: volumes, NodeFsInodes: volumes, ImageFsAvailable: layers, ImageFsInodes: layers} {
			if !apart {
				want = layers
			}
			pods := []*corev1.Pod{volumes, layers}
			if want == volumes {
				pods = []*corev1.Pod{layers, volumes}
			}
			if Rank(pods, use, signal); pods[0] != want {
				t.Errorf("%s, apart %v: %s is first", signal, apart, pods[0].Name)
			}
		}
	}
}

// What containers write has the thresholds of the node's own file system, whatever
// was given for it, and counts only where it was seen.
func TestLayers(t *testing.T) {
	given, err := Parse(map[string]string{"nodefs.available": "10%", "containerfs.available": "3%", "imagefs.available": "15%"}, map[string]string{"nodefs.inodesFree": "7%"}, map[string]string{"nodefs.inodesFree": "1m"})
	if err != nil {
		t.Fatal(err)
	}
	all, conflict := Layers(given)
	if !conflict {
		t.Error("what was given for containerfs was taken")
	}
	got := map[Signal]Threshold{}
	for _, one := range all {
		got[one.Signal] = one
	}
	if len(all) != 5 || got[ContainerFsAvailable].Percent != 0.10 || got[ContainerFsInodes].Percent != 0.07 || got[ContainerFsInodes].Grace != time.Minute {
		t.Errorf("got %+v", all)
	}
	full := Amount{Available: 1, Capacity: 100}
	if hard := got[ContainerFsAvailable]; hard.Met(Observation{NodeFsAvailable: full}) || !hard.Met(Observation{ContainerFsAvailable: full}) {
		t.Error("it counts where it was not seen, or not where it was")
	}
	if again, conflict := Layers(Defaults()); conflict || len(again) != len(Defaults())+2 {
		t.Errorf("the defaults became %+v", again)
	}
}

// Where images alone lie apart pods are to blame for what they write, and for no image.
func TestRankSplit(t *testing.T) {
	u := Use{Disk: 100, Layers: 90, Inodes: 10, LayerInodes: 9, Split: true}
	for signal, want := range map[Signal]uint64{NodeFsAvailable: 100, ContainerFsAvailable: 100, ImageFsAvailable: 0, NodeFsInodes: 10, ContainerFsInodes: 10, ImageFsInodes: 0} {
		if got := u.of(signal); got != want {
			t.Errorf("%s: got %d, want %d", signal, got, want)
		}
	}
}
