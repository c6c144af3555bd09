// SPDX-License-Identifier: Apache-2.0

package podgc_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/podgc"
)

type world struct {
	*bubble.Bubble
	pods  client.Typed[*corev1.Pod]
	nodes client.Typed[*corev1.Node]
}

func run(t *testing.T, threshold int, f func(w world)) {
	t.Helper()
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{podgc.New(podgc.Config{Client: api, Threshold: threshold})}
	}
	bubble.RunAs(t, "pod-garbage-collector", start, func(b *bubble.Bubble) {
		f(world{b, client.For[*corev1.Pod](b.API), client.For[*corev1.Node](b.API)})
	})
}

// pod makes a pod; one with a finalizer shows how it ended.
func (w world) pod(name, node string, phase corev1.PodPhase, finalizers ...string) {
	w.Helper()
	p := bubble.Must(w.pods.Create(w.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Finalizers: finalizers},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}))(w.Bubble).DeepCopy()
	p.Status.Phase = phase
	bubble.Must(w.pods.UpdateStatus(w.Context(), p))(w.Bubble)
}

func (w world) node(name string, taints ...corev1.Taint) {
	w.Helper()
	bubble.Must(w.nodes.Create(w.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{Taints: taints}}))(w.Bubble)
}

func (w world) left(want string) {
	w.Helper()
	var names []string
	for _, p := range bubble.Must(w.pods.List(w.Context(), "default", metav1.ListOptions{}))(w.Bubble) {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != want {
		w.Errorf("left: %s; want %s", got, want)
	}
}

// Pods of a node that is gone fail and go, after a while in which it may come.
func TestNodeGone(t *testing.T) {
	run(t, 0, func(w world) {
		w.node("n")
		w.pod("stays", "n", corev1.PodRunning)
		w.pod("goes", "gone", corev1.PodRunning)
		w.pod("held", "gone", corev1.PodRunning, "example.com/hold")
		w.pod("late", "late", corev1.PodRunning)
		w.Wait(30 * time.Second)
		w.left("goes held late stays")
		w.node("late")
		w.Wait(2 * time.Minute)
		w.left("held late stays")
		p := bubble.Must(w.pods.Get(w.Context(), "default", "held"))(w.Bubble)
		if c := p.Status.Conditions; p.Status.Phase != corev1.PodFailed || len(c) != 1 || c[0].Type != corev1.DisruptionTarget || c[0].Reason != "DeletionByPodGC" ||
			c[0].Message != "PodGC: node no longer exists" || p.DeletionTimestamp == nil {
			w.Errorf("%+v", p.Status)
		}
	})
}

// Pods that nobody can end go: of nodes out of service only when they are down.
func TestOutOfService(t *testing.T) {
	run(t, 0, func(w world) {
		taint := corev1.Taint{Key: corev1.TaintNodeOutOfService, Value: "nodeshutdown", Effect: corev1.TaintEffectNoExecute}
		w.node("down", taint)
		w.node("up", taint)
		w.node("well")
		n := bubble.Must(w.nodes.Get(w.Context(), "", "up"))(w.Bubble).DeepCopy()
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		bubble.Must(w.nodes.UpdateStatus(w.Context(), n))(w.Bubble)
		for _, node := range []string{"down", "up", "well"} {
			w.pod(node, node, corev1.PodRunning)
			if err := w.pods.Delete(w.Context(), "default", node, metav1.DeleteOptions{}); err != nil {
				w.Fatal(err)
			}
		}
		w.pod("kept", "down", corev1.PodRunning)
		w.Wait(2 * time.Minute)
		w.left("kept up well")
	})
}

// The oldest of too many ended pods go, evicted ones first.
func TestTooManyEnded(t *testing.T) {
	run(t, 2, func(w world) {
		w.node("n")
		for _, name := range []string{"a", "b", "c"} {
			w.pod(name, "n", corev1.PodSucceeded)
			w.Wait(time.Second)
		}
		w.pod("evicted", "n", corev1.PodFailed)
		p := bubble.Must(w.pods.Get(w.Context(), "default", "evicted"))(w.Bubble).DeepCopy()
		p.Status.Reason = "Evicted"
		bubble.Must(w.pods.UpdateStatus(w.Context(), p))(w.Bubble)
		w.pod("runs", "n", corev1.PodRunning)
		w.Wait(2 * time.Minute)
		w.left("b c runs")
	})
	run(t, -1, func(w world) {
		w.node("n")
		w.pod("a", "n", corev1.PodSucceeded)
		w.Wait(time.Minute)
		w.left("a")
	})
}
