// SPDX-License-Identifier: Apache-2.0

package cloudnode_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/cloud/local"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/cloudnode"
)

const inventory = `
region: north
machines:
- name: a
  zone: left
  type: small
  labels: {rack: "7", "x.kubernetes.io/y": z}
  addresses:
  - {type: InternalIP, address: 192.0.2.1}
  - {type: InternalIP, address: 192.0.2.2}
  - {type: ExternalIP, address: 203.0.113.1}
- name: b
  stopped: true
`

// run gives a test the nodes' controllers and the path of their machines.
func run(t *testing.T, test func(b *bubble.Bubble, nodes client.Typed[*corev1.Node], path string)) {
	path := filepath.Join(t.TempDir(), "machines.yaml")
	if err := os.WriteFile(path, []byte(inventory), 0o600); err != nil {
		t.Fatal(err)
	}
	provider, err := local.New(path)
	if err != nil {
		t.Fatal(err)
	}
	start := func(api client.Interface) []bubble.Controller {
		c := cloudnode.Config{Client: api, Cloud: provider}
		return []bubble.Controller{cloudnode.NewInitializer(c), cloudnode.NewLifecycle(c)}
	}
	bubble.RunAs(t, "node-controller", start, func(b *bubble.Bubble) { test(b, client.For[*corev1.Node](b.API), path) })
}

func create(b *bubble.Bubble, name string, annotations map[string]string, ready corev1.ConditionStatus) {
	b.Helper()
	nodes := client.For[*corev1.Node](b.API)
	bubble.Must(nodes.Create(b.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
		Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "node.cloudprovider.kubernetes.io/uninitialized", Value: "true", Effect: corev1.TaintEffectNoSchedule}}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name + ".example.com"}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}}}))(b)
	b.Settle()
}

func has(n *corev1.Node, taint string) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == taint })
}

func TestNodesAreDescribed(t *testing.T) {
	run(t, func(b *bubble.Bubble, nodes client.Typed[*corev1.Node], _ string) {
		create(b, "a", map[string]string{"alpha.kubernetes.io/provided-node-ip": "192.0.2.2"}, corev1.ConditionTrue)
		n := bubble.Must(nodes.Get(b.Context(), "", "a"))(b)
		if has(n, "node.cloudprovider.kubernetes.io/uninitialized") || n.Spec.ProviderID != "local://a" {
			b.Errorf("taints %v, provider ID %q", n.Spec.Taints, n.Spec.ProviderID)
		}
		for name, want := range map[string]string{"node.kubernetes.io/instance-type": "small", "beta.kubernetes.io/instance-type": "small", "topology.kubernetes.io/zone": "left",
			"failure-domain.beta.kubernetes.io/zone": "left", "topology.kubernetes.io/region": "north", "failure-domain.beta.kubernetes.io/region": "north", "rack": "7", "x.kubernetes.io/y": ""} {
			if n.Labels[name] != want {
				b.Errorf("label %s is %q, not %q", name, n.Labels[name], want)
			}
		}
		want := []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.2"}, {Type: corev1.NodeExternalIP, Address: "203.0.113.1"}, {Type: corev1.NodeHostName, Address: "a.example.com"}}
		if !slices.Equal(n.Status.Addresses, want) {
			b.Errorf("addresses %v", n.Status.Addresses)
		}
		events := bubble.Must(client.For[*corev1.Event](b.API).List(b.Context(), "", metav1.ListOptions{}))(b)
		if len(events) != 1 || events[0].Reason != "Synced" || events[0].Message != "Node synced successfully" || events[0].Source.Component != "cloud-node-controller" {
			b.Errorf("events %v", events)
		}
	})
}

func TestAnAddressThatTheCloudDoesNotKnow(t *testing.T) {
	run(t, func(b *bubble.Bubble, nodes client.Typed[*corev1.Node], _ string) {
		create(b, "a", map[string]string{"alpha.kubernetes.io/provided-node-ip": "192.0.2.9"}, corev1.ConditionTrue)
		if n := bubble.Must(nodes.Get(b.Context(), "", "a"))(b); !has(n, "node.cloudprovider.kubernetes.io/uninitialized") {
			b.Error("the node was taken as it is")
		}
	})
}

func TestMachinesThatAreOffOrGone(t *testing.T) {
	run(t, func(b *bubble.Bubble, nodes client.Typed[*corev1.Node], path string) {
		create(b, "a", nil, corev1.ConditionFalse)
		create(b, "b", nil, corev1.ConditionUnknown)
		create(b, "c", nil, corev1.ConditionUnknown)
		b.Settle()
		if n := bubble.Must(nodes.Get(b.Context(), "", "b"))(b); !has(n, "node.cloudprovider.kubernetes.io/shutdown") {
			b.Errorf("b is off and has the taints %v", n.Spec.Taints)
		}
		if _, err := nodes.Get(b.Context(), "", "c"); !apierrors.IsNotFound(err) {
			b.Errorf("c has no machine and is still there: %v", err)
		}
		if n := bubble.Must(nodes.Get(b.Context(), "", "a"))(b); has(n, "node.cloudprovider.kubernetes.io/shutdown") {
			b.Errorf("a runs and has the taints %v", n.Spec.Taints)
		}
		if err := os.WriteFile(path, []byte("machines: [{name: b}]"), 0o600); err != nil {
			b.Fatal(err)
		}
		defer func() {
			if err := os.WriteFile(path, []byte(inventory), 0o600); err != nil {
				b.Error(err)
			}
		}()
		bubble.Must(nodes.MergePatch(b.Context(), "", "b", map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}, "status"))(b)
		b.Wait(20e9)
		if n := bubble.Must(nodes.Get(b.Context(), "", "b"))(b); has(n, "node.cloudprovider.kubernetes.io/shutdown") {
			b.Error("b is ready and still tainted")
		}
		if _, err := nodes.Get(b.Context(), "", "a"); !apierrors.IsNotFound(err) {
			b.Errorf("a's machine was taken away: %v", err)
		}
	})
}
