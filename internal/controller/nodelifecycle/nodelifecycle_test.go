// SPDX-License-Identifier: Apache-2.0

package nodelifecycle_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/nodelifecycle"
	"kaji/kajitest"
)

// account is the controller's own: the tests run with its rights only.
const account = "node-controller"

// world is a control plane with the controller, in a bubble.
type world struct {
	t   *testing.T
	api client.Interface
}

func run(t *testing.T, f func(t *testing.T, w world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cluster := kajitest.Start(t, kajitest.WithRBAC())
		defer bubble.Allowed(t, cluster, account)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		c := nodelifecycle.New(nodelifecycle.Config{Client: bubble.Account(cluster, account)})
		go func() { done <- c.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		f(t, world{t, cluster.Client()})
	})
}

// pass lets time go by, in which the named nodes renew their leases.
func (w world) pass(d time.Duration, alive ...string) {
	w.t.Helper()
	leases := client.For[*coordinationv1.Lease](w.api)
	for end := time.Now().Add(d); time.Now().Before(end); {
		now := metav1.NowMicro()
		for _, name := range alive {
			if _, err := leases.MergePatch(w.t.Context(), corev1.NamespaceNodeLease, name, map[string]any{"spec": map[string]any{"renewTime": now}}, ""); err != nil {
				w.t.Fatal(err)
			}
		}
		<-time.After(min(10*time.Second, time.Until(end)))
		synctest.Wait()
	}
}

func (w world) node(name string, ready corev1.ConditionStatus) {
	w.t.Helper()
	ctx, nodes, leases := w.t.Context(), client.For[*corev1.Node](w.api), client.For[*coordinationv1.Lease](w.api)
	node, err := nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelOSStable: "linux"}}})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: name}}); err != nil {
		w.t.Fatal(err)
	}
	w.ready(node.Name, ready)
}

func (w world) ready(name string, ready corev1.ConditionStatus) {
	w.t.Helper()
	patch := map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{
		{Type: corev1.NodeReady, Status: ready, Reason: "KubeletReady", LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}}}}
	if _, err := client.For[*corev1.Node](w.api).MergePatch(w.t.Context(), "", name, patch, "status"); err != nil {
		w.t.Fatal(err)
	}
}

// taints are a node's, as key:effect, sorted.
func (w world) taints(name string) string {
	w.t.Helper()
	node, err := client.For[*corev1.Node](w.api).Get(w.t.Context(), "", name)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, t := range node.Spec.Taints {
		out = append(out, strings.TrimPrefix(t.Key, "node.kubernetes.io/")+":"+string(t.Effect))
		if t.TimeAdded == nil {
			w.t.Errorf("taint %s has no time", t.Key)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (w world) reasons() []string {
	w.t.Helper()
	all, err := client.For[*corev1.Event](w.api).List(w.t.Context(), "", metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, e := range all {
		out = append(out, e.InvolvedObject.Name+" "+e.Reason)
	}
	return out
}

const gone = "unreachable:NoExecute unreachable:NoSchedule"

// A node that renews its lease lives; one that is silent becomes Unknown, is
// tainted, its pods are not ready; when it reports again the taints go.
func TestSilentNode(t *testing.T) {
	run(t, func(t *testing.T, w world) {
		w.node("a", corev1.ConditionTrue)
		w.node("b", corev1.ConditionTrue)
		ctx, pods := t.Context(), client.For[*corev1.Pod](w.api)
		pod, err := pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"},
			Spec: corev1.PodSpec{NodeName: "b", Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
		if err != nil {
			t.Fatal(err)
		}
		pod = pod.DeepCopy()
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if _, err := pods.UpdateStatus(ctx, pod); err != nil {
			t.Fatal(err)
		}
		w.pass(3*time.Minute, "a", "b")
		if a, b := w.taints("a"), w.taints("b"); a != "" || b != "" {
			t.Fatalf("taints of living nodes: %q, %q", a, b)
		}
		w.pass(45*time.Second, "a")
		if got := w.taints("b"); got != "" {
			t.Fatalf("tainted before its time: %q", got)
		}
		w.pass(30*time.Second, "a")
		if a, b := w.taints("a"), w.taints("b"); a != "" || b != gone {
			t.Errorf("taints %q, %q; want none and %q", a, b, gone)
		}
		node, err := client.For[*corev1.Node](w.api).Get(ctx, "", "b")
		if err != nil {
			t.Fatal(err)
		}
		if c := node.Status.Conditions[0]; c.Status != corev1.ConditionUnknown || c.Reason != "NodeStatusUnknown" || len(node.Status.Conditions) != 4 {
			t.Errorf("conditions %+v", node.Status.Conditions)
		}
		if node.Labels["beta.kubernetes.io/os"] != "linux" {
			t.Errorf("labels %v", node.Labels)
		}
		if p, err := pods.Get(ctx, "default", "p"); err != nil || p.Status.Conditions[0].Status != corev1.ConditionFalse {
			t.Errorf("the pod stays ready: %+v, %v", p.Status.Conditions, err)
		}
		for _, want := range []string{"a RegisteredNode", "b RegisteredNode", "b NodeNotReady", "p NodeNotReady"} {
			if got := w.reasons(); !slices.Contains(got, want) {
				t.Errorf("no event %q in %v", want, got)
			}
		}
		w.ready("b", corev1.ConditionTrue)
		w.pass(10*time.Second, "a", "b")
		if got := w.taints("b"); got != "" {
			t.Errorf("taints after the return: %q", got)
		}
	})
}

// When the last node falls silent, the taints are taken off: the control plane
// is alone.
func TestAllNodesSilent(t *testing.T) {
	run(t, func(t *testing.T, w world) {
		w.node("a", corev1.ConditionTrue)
		w.node("b", corev1.ConditionTrue)
		w.pass(time.Minute, "a", "b")
		w.pass(2*time.Minute, "a")
		if got := w.taints("b"); got != gone {
			t.Fatalf("taints %q", got)
		}
		w.pass(5 * time.Minute)
		if a, b := w.taints("a"), w.taints("b"); a != "unreachable:NoSchedule" || b != "unreachable:NoSchedule" {
			t.Errorf("taints %q, %q; want no NoExecute", a, b)
		}
	})
}

// In a zone where most nodes are lost, and few are, nothing more is evicted.
func TestUnhealthyZone(t *testing.T) {
	run(t, func(t *testing.T, w world) {
		for _, name := range []string{"a", "b", "c", "d"} {
			w.node(name, corev1.ConditionTrue)
		}
		w.pass(time.Minute, "a", "b", "c", "d")
		w.pass(5*time.Minute, "a")
		evicted := 0
		for _, name := range []string{"b", "c", "d"} {
			switch got := w.taints(name); got {
			case gone:
				evicted++
			case "unreachable:NoSchedule":
			default:
				t.Errorf("%s: taints %q", name, got)
			}
		}
		if evicted > 1 {
			t.Errorf("%d nodes are emptied, want one at most", evicted)
		}
	})
}

// A node that never reports is not tainted as long as it starts; a kubelet's own
// NotReady and conditions become taints at once.
func TestConditions(t *testing.T) {
	run(t, func(t *testing.T, w world) {
		w.node("a", corev1.ConditionTrue)
		nodes := client.For[*corev1.Node](w.api)
		if _, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "new"}}); err != nil {
			t.Fatal(err)
		}
		w.pass(50*time.Second, "a")
		if got := w.taints("new"); got != "" {
			t.Errorf("a starting node has taints %q", got)
		}
		w.pass(time.Minute, "a")
		if got := w.taints("new"); got != gone {
			t.Errorf("a node that never reported has taints %q", got)
		}
		w.node("b", corev1.ConditionFalse)
		w.pass(30*time.Second, "a", "b")
		if got := w.taints("b"); got != "not-ready:NoExecute not-ready:NoSchedule" {
			t.Errorf("a node that is not ready has taints %q", got)
		}
		patch := map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: corev1.ConditionTrue}, {Type: corev1.NodeDiskPressure, Status: corev1.ConditionTrue}}}}
		if _, err := nodes.MergePatch(t.Context(), "", "b", patch, "status"); err != nil {
			t.Fatal(err)
		}
		if _, err := nodes.MergePatch(t.Context(), "", "b", map[string]any{"spec": map[string]any{"unschedulable": true}}, ""); err != nil {
			t.Fatal(err)
		}
		w.pass(10*time.Second, "a", "b")
		if got := w.taints("b"); got != "disk-pressure:NoSchedule unschedulable:NoSchedule" {
			t.Errorf("taints %q", got)
		}
	})
}
