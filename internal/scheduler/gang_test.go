// SPDX-License-Identifier: Apache-2.0

package scheduler_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/api/catalog"
	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/scheduler"
	"kaji/internal/scheduler/config"
	"kaji/kajitest"
)

// startGroups is start with the feature gate GenericWorkload.
func startGroups(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, Interface: kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) {
		c.DisabledAdmission = append(c.DisabledAdmission, "Priority")
		c.Kinds = catalog.WithGroups(catalog.Current())
	})).Client()}
	cfg := config.Default()
	cfg.LeaderElection.LeaderElect = ptr.To(false)
	cfg.PodInitialBackoffSeconds, cfg.PodMaxBackoffSeconds = ptr.To[int64](1), ptr.To[int64](1)
	w.run(scheduler.Config{Client: w, Configuration: cfg, Seed: 1, PodGroups: true, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	return w
}

// group is a PodGroup; zero is no gang.
func group(name string, minCount, priority int32) *schedulingv1beta1.PodGroup {
	g := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	g.Spec.Priority = &priority
	if minCount > 0 {
		g.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: minCount}
	} else {
		g.Spec.SchedulingPolicy.Basic = &schedulingv1beta1.BasicSchedulingPolicy{}
	}
	return g
}

func member(name, cpu, group string, priority int32) *corev1.Pod {
	return pod(name, cpu, func(p *corev1.Pod) {
		p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: &group}
		p.Spec.Priority = &priority
		p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](0) // no node agent ends it
	})
}

// reported waits for the group's condition.
func (w *world) reported(name, reason, message string) {
	w.t.Helper()
	got := &metav1.Condition{}
	defer func() {
		if w.t.Failed() {
			w.t.Logf("%s: condition says %s %q, want %s %q", name, got.Reason, got.Message, reason, message)
		}
	}()
	w.eventually("the condition of "+name, func() bool {
		g, err := client.For[*schedulingv1beta1.PodGroup](w).Get(w.t.Context(), "default", name)
		if err != nil {
			w.t.Fatal(err)
		}
		if c := meta.FindStatusCondition(g.Status.Conditions, schedulingv1beta1.PodGroupInitiallyScheduled); c != nil {
			got = c
		}
		return got.Reason == reason && got.Message == message
	})
}

func TestGangWaitsForItsPods(t *testing.T) {
	w := startGroups(t)
	create(w, node("n1", "4"))
	create(w, member("orphan", "1", "later", 0))
	create(w, group("g", 3, 0))
	create(w, member("a", "1", "g", 0))
	create(w, member("b", "1", "g", 0))
	create(w, pod("other", "100m"))
	w.lands("other", "n1") // the scheduler has seen what came before
	for _, name := range []string{"a", "b", "orphan"} {
		if p := w.pod(name); p.Spec.NodeName != "" || len(p.Status.Conditions) > 0 {
			t.Errorf("%s was tried: %+v", name, p.Status)
		}
	}
	create(w, member("c", "1", "g", 0))
	for _, name := range []string{"a", "b", "c"} {
		w.lands(name, "n1")
	}
	w.reported("g", "Scheduled", "")
	create(w, group("later", 0, 0))
	w.reported("later", "Unschedulable", "minCount (1) cannot be satisfied: 0 scheduled, 0 remaining, pod group preemption: No preemption victims found for incoming preemptor")
	create(w, node("n2", "4"))
	w.lands("orphan", "n2")
	w.reported("later", "Scheduled", "")
}

func TestGangIsPlacedWholeOrNotAtAll(t *testing.T) {
	w := startGroups(t)
	create(w, node("n1", "2"))
	create(w, pod("first", ""))
	w.lands("first", "n1") // the order counts from here: a first list has none
	create(w, group("g", 3, 0))
	for _, name := range []string{"a", "b", "c"} {
		create(w, member(name, "1", "g", 0))
	}
	const why = "minCount (3) cannot be satisfied: 2 scheduled, 0 remaining, pod group preemption: No preemption victims found for incoming preemptor"
	w.reported("g", "Unschedulable", why)
	w.refused("a", "pod group is unschedulable, "+why)
	w.refused("c", "0/1 nodes are available: 1 Insufficient cpu.")
	create(w, pod("single", "2"))
	w.lands("single", "n1") // nothing is kept for the gang
	create(w, node("n2", "2"))
	create(w, node("n3", "1"))
	for _, name := range []string{"a", "b", "c"} {
		w.lands(name, "n2", "n3")
	}
	w.reported("g", "Scheduled", "")
}

func TestGangNeedsFewerPods(t *testing.T) {
	w := startGroups(t)
	create(w, node("n1", "2"))
	create(w, group("g", 3, 0))
	create(w, member("a", "1", "g", 0))
	create(w, member("b", "1", "g", 0))
	patch := map[string]any{"spec": map[string]any{"schedulingPolicy": map[string]any{"gang": map[string]any{"minCount": 2}}}}
	if _, err := client.For[*schedulingv1beta1.PodGroup](w).MergePatch(t.Context(), "default", "g", patch, ""); err != nil {
		t.Fatal(err)
	}
	w.lands("a", "n1")
	w.lands("b", "n1")
	create(w, member("more", "1", "g", 0)) // one too many
	w.refused("more", "0/1 nodes are available: 1 Insufficient cpu.")
	w.reported("g", "Scheduled", "")
}

func TestGangPreempts(t *testing.T) {
	w := startGroups(t)
	create(w, node("n1", "2"))
	low := group("low", 2, 0)
	low.Spec.DisruptionMode = &schedulingv1beta1.DisruptionMode{All: &schedulingv1beta1.AllDisruptionMode{}}
	create(w, low)
	create(w, member("v1", "500m", "low", 0))
	create(w, member("v2", "500m", "low", 0))
	create(w, pod("v3", "1", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](0) }))
	for _, name := range []string{"v1", "v2", "v3"} {
		w.lands(name, "n1")
	}
	create(w, group("g", 1, 100))
	create(w, member("a", "500m", "g", 100))
	w.lands("a", "n1")
	// The single pod is worth less than the group, whose pods go together.
	for name, stays := range map[string]bool{"v1": true, "v2": true, "v3": false} {
		_, err := client.For[*corev1.Pod](w).Get(t.Context(), "default", name)
		if (err == nil) != stays {
			t.Errorf("%s: %v, to stay: %v", name, err, stays)
		}
	}
	create(w, group("h", 2, 200))
	create(w, member("x", "1", "h", 200))
	create(w, member("y", "1", "h", 200))
	w.lands("x", "n1")
	w.lands("y", "n1")
	for _, name := range []string{"v1", "v2", "a"} {
		if _, err := client.For[*corev1.Pod](w).Get(t.Context(), "default", name); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
}

// TestGangsUnderLoad makes random groups on a cluster that is too small, and
// wants every gang whole or without nodes, and no node beyond what it has.
func TestGangsUnderLoad(t *testing.T) {
	w := startGroups(t)
	random := rand.New(rand.NewPCG(7, 7))
	for i := range 5 {
		create(w, node(fmt.Sprintf("n%d", i), "4"))
	}
	need := map[string]int{}
	for i := range 12 {
		name := fmt.Sprintf("g%d", i)
		size := 1 + random.IntN(6)
		need[name] = 1 + random.IntN(size)
		create(w, group(name, int32(need[name]), 0))
		for j := range size {
			create(w, member(fmt.Sprintf("%s-%d", name, j), "1", name, 0))
		}
	}
	var wrong []string
	defer func() { t.Log("wrong at the end:", wrong) }()
	w.eventually("the end of the placements", func() bool {
		wrong = nil
		pods, err := client.For[*corev1.Pod](w).List(t.Context(), "default", metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		used, placed, told := map[string]int{}, map[string]int{}, map[string]bool{}
		for _, p := range pods {
			gang := strings.Split(p.Name, "-")[0]
			if n := p.Spec.NodeName; n != "" {
				used[n]++
				placed[gang]++
			}
			told[gang] = told[gang] || len(p.Status.Conditions) > 0
		}
		total := 0
		for n, count := range used {
			total += count
			if count > 4 {
				t.Fatalf("%s has %d pods", n, count)
			}
		}
		for gang, n := range need {
			switch {
			case placed[gang] == 0 && (!told[gang] || total+n <= 20):
				wrong = append(wrong, gang+" waits although there is room")
			case placed[gang] > 0 && placed[gang] < n:
				wrong = append(wrong, gang+" is there in part")
			}
		}
		return len(wrong) == 0
	})
}
