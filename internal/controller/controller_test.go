// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller"
	"kaji/kajitest"
)

// run starts the controllers against a control plane of the test's own and
// calls f; after settle everything has come to rest.
func run(t *testing.T, f func(t *testing.T, api client.Interface, settle func())) {
	synctest.Test(t, func(t *testing.T) {
		cluster := kajitest.Start(t)
		ctx, cancel := context.WithCancel(t.Context())
		m, err := controller.New(controller.Config{
			Client:       func(string) (client.Interface, error) { return cluster.Client(), nil },
			ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, RootCA: []byte("PEM"),
		})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		f(t, cluster.Client(), func() {
			<-time.After(time.Second) // informers look every 100 ms whether they are synced
			synctest.Wait()
		})
	})
}

func TestNodesGetPodRanges(t *testing.T) {
	run(t, func(t *testing.T, api client.Interface, settle func()) {
		nodes := client.For[*corev1.Node](api)
		for _, name := range []string{"a", "b"} {
			if _, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
				t.Fatal(err)
			}
			settle()
		}
		for name, want := range map[string]string{"a": "10.244.0.0/24", "b": "10.244.1.0/24"} {
			node, err := nodes.Get(t.Context(), "", name)
			if err != nil || node.Spec.PodCIDR != want || len(node.Spec.PodCIDRs) != 1 {
				t.Errorf("%s: %v %v, %v; want %s", name, node.Spec.PodCIDR, node.Spec.PodCIDRs, err, want)
			}
		}
	})
}

func TestNamespacesAreFurnished(t *testing.T) {
	run(t, func(t *testing.T, api client.Interface, settle func()) {
		ctx := t.Context()
		if _, err := client.For[*corev1.Namespace](api).Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}); err != nil {
			t.Fatal(err)
		}
		settle()
		accounts, maps := client.For[*corev1.ServiceAccount](api), client.For[*corev1.ConfigMap](api)
		for _, ns := range []string{"default", "kube-system", "shop"} {
			if _, err := accounts.Get(ctx, ns, "default"); err != nil {
				t.Error(err)
			}
			if m, err := maps.Get(ctx, ns, "kube-root-ca.crt"); err != nil || m.Data["ca.crt"] != "PEM" {
				t.Errorf("%v, %v", m, err)
			}
		}
		if err := accounts.Delete(ctx, "shop", "default", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := maps.MergePatch(ctx, "shop", "kube-root-ca.crt", map[string]any{"data": map[string]string{"ca.crt": "forged"}}, ""); err != nil {
			t.Fatal(err)
		}
		settle()
		if _, err := accounts.Get(ctx, "shop", "default"); err != nil {
			t.Errorf("the deleted account did not come back: %v", err)
		}
		if m, err := maps.Get(ctx, "shop", "kube-root-ca.crt"); err != nil || m.Data["ca.crt"] != "PEM" {
			t.Errorf("the forged bundle stayed: %v, %v", m, err)
		}
	})
}
