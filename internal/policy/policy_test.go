// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/netfilter"
	"kaji/internal/netfilter/nstest"
	"kaji/internal/policy/kernel"
	"kaji/kajitest"
)

// world is a cluster with one node of two pods.
type world struct {
	*testing.T
	node, a, b *nstest.Namespace
	api        client.Interface
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, node: nstest.New(t), a: nstest.New(t), b: nstest.New(t), api: kajitest.Start(t).Client()}
	w.node.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644) })
	for i, pod := range []*nstest.Namespace{w.a, w.b} {
		w.node.Connect(fmt.Sprintf("pod%d", i), fmt.Sprintf("10.244.%d.1/24", i), pod, "eth0", fmt.Sprintf("10.244.%d.2/24", i))
		pod.Route("default", fmt.Sprintf("10.244.%d.1", i))
	}
	w.b.Serve(":80", "b")
	create(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}, Spec: corev1.NodeSpec{PodCIDR: "10.244.0.0/16", PodCIDRs: []string{"10.244.0.0/16"}}})
	return w
}

func create[T client.Object](w *world, o T) T {
	w.Helper()
	made, err := client.For[T](w.api).Create(w.Context(), o)
	if err != nil {
		w.Fatal(err)
	}
	return made
}

func (w *world) pod(name, ip string) {
	w.Helper()
	p := create(w, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{NodeName: "here", Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
	status := map[string]any{"status": map[string]any{"phase": "Running", "podIP": ip, "podIPs": []map[string]any{{"ip": ip}}}}
	if _, err := client.For[*corev1.Pod](w.api).MergePatch(w.Context(), "default", p.Name, status, "status"); err != nil {
		w.Fatal(err)
	}
}

func (w *world) policy(name string, from ...networkingv1.NetworkPolicyPeer) {
	w.Helper()
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "b"}}}}
	if len(from) > 0 {
		p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: from}}
	}
	create(w, p)
}

// run starts the enforcer as a process would; the function ends it.
func (w *world) run() (stop func()) {
	w.Helper()
	e, err := New(Config{Client: w.api, NodeName: "here", NetNS: w.node.FD()})
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
	}
}

// becomes waits until a reaches b, or does not.
func (w *world) becomes(want bool) {
	w.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		_, _, err := w.a.Ask("tcp", "10.244.1.2:80")
		if (err == nil) == want {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("a reaches b: %v, want %v", err == nil, want)
		}
	}
}

func (w *world) table() bool {
	w.Helper()
	conn, err := netfilter.Open(w.node.FD())
	if err != nil {
		w.Fatal(err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		w.Fatal(err)
	}
	for _, t := range tables {
		if t.Name == kernel.TableName {
			return true
		}
	}
	return false
}

func TestEnforcement(t *testing.T) {
	w := newWorld(t)
	stop := w.run()
	w.pod("b", "10.244.1.2")
	w.becomes(true)
	if w.table() {
		t.Error("a cluster without policies has a table in the kernel")
	}
	w.policy("deny")
	w.becomes(false)
	w.policy("allow", networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}})
	w.pod("a", "10.244.0.2")
	w.becomes(true)
	pods := client.For[*corev1.Pod](w.api)
	if _, err := pods.MergePatch(t.Context(), "default", "a", map[string]any{"metadata": map[string]any{"labels": map[string]any{"app": "other"}}}, ""); err != nil {
		t.Fatal(err)
	}
	w.becomes(false)

	// The rules stay while nobody runs, and policies that went meanwhile go.
	stop()
	w.a.MustNotReach("tcp", "10.244.1.2:80")
	policies := client.For[*networkingv1.NetworkPolicy](w.api)
	for _, name := range []string{"deny", "allow"} {
		if err := policies.Delete(t.Context(), "default", name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	stop = w.run()
	defer stop()
	w.becomes(true)
}

// TestAdmit: a pod's status tells no address yet, and its first packet meets
// its rules all the same.
func TestAdmit(t *testing.T) {
	w := newWorld(t)
	e, err := New(Config{Client: w.api, NodeName: "here", NetNS: w.node.FD()})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { done <- e.Run(ctx) }()
	defer func() { stop(); <-done }()
	admit := func(o *corev1.Pod, ip string) error {
		wait, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return e.Admit(wait, o.Namespace, o.Name, o.UID, []netip.Addr{netip.MustParseAddr(ip)})
	}
	// Without policies nobody asks who it is.
	if err := admit(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "unknown", UID: "u"}}, "10.244.9.9"); err != nil {
		t.Error(err)
	}
	w.pod("a", "10.244.0.2")
	w.policy("allow", networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "b"}}})
	w.becomes(true)
	bare := create(w, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b", Labels: map[string]string{"app": "b"}},
		Spec: corev1.PodSpec{NodeName: "here", Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
	if err := admit(bare, "10.244.1.2"); err != nil {
		t.Fatal(err)
	}
	w.becomes(false) // the policy may come a moment after the pod
	if !w.table() {
		t.Error("no rules hold for the pod")
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if err := e.Admit(short, "default", "nobody", "u", nil); err == nil {
		t.Error("a pod nobody knows was let in")
	}
}
