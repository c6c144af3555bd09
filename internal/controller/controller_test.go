// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"net/netip"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/controller"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/controllertest"
	"kaji/kajitest"
)

// accounts are those that controllers asked for.
type accounts map[string]bool

// of hands out the client of an account with its own rights only; the manager's
// own is the administrator's, since its informers serve all.
func (a accounts) of(cluster *kajitest.Cluster) func(string) (client.Interface, error) {
	return func(name string) (client.Interface, error) {
		a[name] = true
		return bubble.Account(cluster, name), nil
	}
}

// faulty is of, with calls that fail.
func (a accounts) faulty(cluster *kajitest.Cluster, faults *controllertest.Faults) func(string) (client.Interface, error) {
	own := a.of(cluster)
	return func(name string) (client.Interface, error) {
		api, err := own(name)
		return faults.Client(api), err
	}
}

// allowed checks that nothing was refused any of them.
func (a accounts) allowed(t *testing.T, cluster *kajitest.Cluster) {
	t.Helper()
	for name := range a {
		bubble.Allowed(t, cluster, name)
	}
}

// run starts the controllers against a control plane of the test's own and
// calls f; after settle everything has come to rest.
func run(t *testing.T, f func(t *testing.T, api client.Interface, settle func())) {
	synctest.Test(t, func(t *testing.T) {
		cluster, used := kajitest.Start(t, kajitest.WithRBAC()), accounts{}
		ctx, cancel := context.WithCancel(t.Context())
		m, err := controller.New(controller.Config{
			Client:       used.of(cluster),
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
			used.allowed(t, cluster)
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

// markReady plays the node: it makes every pod of a namespace run and ready.
func markReady(t *testing.T, api client.Interface) {
	t.Helper()
	pods := client.For[*corev1.Pod](api)
	all, err := pods.List(t.Context(), "default", metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		ready := p.DeepCopy()
		ready.Status.Phase = corev1.PodRunning
		ready.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
		if _, err := pods.UpdateStatus(t.Context(), ready); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) { // it may end meanwhile
			t.Fatal(err)
		}
	}
}

func TestADeploymentRollsOut(t *testing.T) {
	run(t, func(t *testing.T, api client.Interface, settle func()) {
		ctx := t.Context()
		deployments, sets, pods := client.For[*appsv1.Deployment](api), client.For[*appsv1.ReplicaSet](api), client.For[*corev1.Pod](api)
		labels := map[string]string{"app": "web"}
		three := int32(3)
		_, err := deployments.Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: appsv1.DeploymentSpec{
			Replicas: &three, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "one"}}}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		settle()
		roll := func(image string) {
			t.Helper()
			for range 20 { // as many steps as a rollout may take
				markReady(t, api)
				settle()
			}
			d, err := deployments.Get(ctx, "default", "web")
			if err != nil {
				t.Fatal(err)
			}
			if d.Status.AvailableReplicas != 3 || d.Status.UpdatedReplicas != 3 || d.Status.Replicas != 3 || d.Status.ObservedGeneration != d.Generation {
				t.Errorf("%s: status %+v", image, d.Status)
			}
			all, err := pods.List(ctx, "default", metav1.ListOptions{})
			if err != nil || len(all) != 3 {
				t.Fatalf("%s: %d pods, %v", image, len(all), err)
			}
			for _, p := range all {
				if p.Spec.Containers[0].Image != image {
					t.Errorf("%s runs %s, want %s", p.Name, p.Spec.Containers[0].Image, image)
				}
			}
		}
		roll("one")
		for i, image := range []string{"two", "one"} {
			if _, err := deployments.Patch(ctx, "default", "web", types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"`+image+`"}]`), ""); err != nil {
				t.Fatal(err)
			}
			settle()
			roll(image)
			d, err := deployments.Get(ctx, "default", "web")
			if want := strconv.Itoa(i + 2); err != nil || d.Annotations["deployment.kubernetes.io/revision"] != want {
				t.Errorf("revision %q, want %s (%v)", d.Annotations["deployment.kubernetes.io/revision"], want, err)
			}
		}
		all, err := sets.List(ctx, "default", metav1.ListOptions{})
		if err != nil || len(all) != 2 {
			t.Errorf("%d replica sets, want the two revisions (%v)", len(all), err)
		}
		if _, err := deployments.MergePatch(ctx, "default", "web", map[string]any{"spec": map[string]any{"replicas": 1}}, ""); err != nil {
			t.Fatal(err)
		}
		settle()
		left, err := pods.List(ctx, "default", metav1.ListOptions{})
		if err != nil || len(left) != 1 {
			t.Errorf("scaled to one: %d pods (%v)", len(left), err)
		}
	})
}
