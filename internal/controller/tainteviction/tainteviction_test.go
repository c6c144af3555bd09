// SPDX-License-Identifier: Apache-2.0

package tainteviction_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/tainteviction"
)

type world struct {
	*bubble.Bubble
	pods  client.Typed[*corev1.Pod]
	nodes client.Typed[*corev1.Node]
}

// run starts with a node "n".
func run(t *testing.T, f func(w world)) {
	t.Helper()
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{tainteviction.New(api, nil)}
	}
	bubble.RunAs(t, "node-controller", start, func(b *bubble.Bubble) {
		w := world{b, client.For[*corev1.Pod](b.API), client.For[*corev1.Node](b.API)}
		bubble.Must(w.nodes.Create(b.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}))(b)
		f(w)
	})
}

func (w world) taint(keys ...string) {
	w.Helper()
	n := bubble.Must(w.nodes.Get(w.Context(), "", "n"))(w.Bubble).DeepCopy()
	n.Spec.Taints = nil
	for _, key := range keys {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute})
	}
	bubble.Must(w.nodes.Update(w.Context(), n))(w.Bubble)
}

// pod makes a pod that tolerates a taint for so many seconds, for ever when
// negative; without a key it tolerates nothing.
func (w world) pod(name, key string, seconds int64) {
	w.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	if key != "" {
		p.Spec.Tolerations = []corev1.Toleration{{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}}
		if seconds >= 0 {
			p.Spec.Tolerations[0].TolerationSeconds = &seconds
		}
	}
	bubble.Must(w.pods.Create(w.Context(), p))(w.Bubble)
}

// stay checks which pods are not being deleted.
func (w world) stay(want string) {
	w.Helper()
	w.Settle()
	var names []string
	for _, p := range bubble.Must(w.pods.List(w.Context(), "default", metav1.ListOptions{}))(w.Bubble) {
		if p.DeletionTimestamp == nil {
			names = append(names, p.Name)
			continue
		}
		if c := p.Status.Conditions; len(c) == 0 || c[len(c)-1].Reason != "DeletionByTaintManager" || c[len(c)-1].Message != "Taint manager: deleting due to NoExecute taint" {
			w.Errorf("%s: %+v", p.Name, c)
		}
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != want {
		w.Errorf("these stay: %s; want %s", got, want)
	}
}

func TestTolerations(t *testing.T) {
	run(t, func(w world) {
		w.pod("none", "", 0)
		w.pod("ever", "a", -1)
		w.pod("minute", "a", 60)
		w.pod("other", "b", -1)
		w.stay("ever minute none other")
		w.taint("a")
		w.stay("ever minute")
		w.Wait(40 * time.Second)
		w.pod("late", "", 0) // it comes to a tainted node
		w.stay("ever minute")
		w.Wait(20 * time.Second)
		w.stay("ever")
		w.taint("a", "b")
		w.stay("")
	})
}

// A taint that goes in time lets the pod stay; the next begins anew.
func TestTaintGoes(t *testing.T) {
	run(t, func(w world) {
		w.pod("p", "a", 60)
		w.taint("a")
		w.Wait(50 * time.Second)
		w.taint()
		w.stay("p")
		w.Wait(time.Minute)
		w.stay("p")
		w.taint("a")
		w.Wait(40 * time.Second)
		w.stay("p")
		w.Wait(20 * time.Second)
		w.stay("")
		var said []string
		for _, e := range bubble.Must(client.For[*corev1.Event](w.API).List(w.Context(), "default", metav1.ListOptions{}))(w.Bubble) {
			said = append(said, e.Reason+": "+e.Message)
		}
		slices.Sort(said)
		if want := []string{"TaintManagerEviction: Cancelling deletion of Pod default/p", "TaintManagerEviction: Marking for deletion Pod default/p"}; !slices.Equal(said, want) {
			w.Errorf("events %q, want %q", said, want)
		}
	})
}
