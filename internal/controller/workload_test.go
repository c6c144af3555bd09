// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/controller"
	"kaji/internal/controller/controllertest"
	"kaji/kajitest"
)

// workloads are one of each, with a selector of its own.
func workloads(t *testing.T, api client.Interface) {
	t.Helper()
	ctx, three := t.Context(), int32(3)
	pod := func(app string) corev1.PodTemplateSpec {
		return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "one"}}}}
	}
	named := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "default", Name: name} }
	selector := func(app string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"n1", "n2"} {
		_, err := client.For[*corev1.Node](api).Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
		must(err)
	}
	_, err := client.For[*appsv1.Deployment](api).Create(ctx, &appsv1.Deployment{ObjectMeta: named("deploy"), Spec: appsv1.DeploymentSpec{Replicas: &three, Selector: selector("deploy"), Template: pod("deploy")}})
	must(err)
	_, err = client.For[*appsv1.StatefulSet](api).Create(ctx, &appsv1.StatefulSet{ObjectMeta: named("sts"), Spec: appsv1.StatefulSetSpec{Replicas: &three, Selector: selector("sts"), Template: pod("sts"),
		VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}}}}}}})
	must(err)
	_, err = client.For[*appsv1.DaemonSet](api).Create(ctx, &appsv1.DaemonSet{ObjectMeta: named("ds"), Spec: appsv1.DaemonSetSpec{Selector: selector("ds"), Template: pod("ds")}})
	must(err)
	template := pod("rc")
	_, err = client.For[*corev1.ReplicationController](api).Create(ctx, &corev1.ReplicationController{ObjectMeta: named("rc"), Spec: corev1.ReplicationControllerSpec{Replicas: &three, Template: &template}})
	must(err)
}

// images counts the pods of each workload by image.
func images(t *testing.T, api client.Interface) map[string]int {
	t.Helper()
	all, err := client.For[*corev1.Pod](api).List(t.Context(), "default", metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, p := range all {
		out[p.Labels["app"]+" "+p.Spec.Containers[0].Image]++
	}
	return out
}

// TestWorkloadsUnderFaults claims that each workload makes its pods, claims and
// revisions once and rolls out although every kind of call fails three ways.
func TestWorkloadsUnderFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, faults := kajitest.Start(t, kajitest.WithRBAC()), &controllertest.Faults{}
		used := accounts{}
		defer used.allowed(t, cluster)
		ctx, cancel := context.WithCancel(t.Context())
		api := cluster.Client()
		m, err := controller.New(controller.Config{Client: used.faulty(cluster, faults),
			Controllers: []string{"deployment", "replicaset", "statefulset", "daemonset", "replicationcontroller"}})
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
		settle := func() {
			for range 40 { // as many steps as a rollout may take
				<-time.After(5 * time.Second)
				synctest.Wait()
				markReady(t, api)
			}
		}
		workloads(t, api)
		settle()
		if got, want := images(t, api), map[string]int{"deploy one": 3, "sts one": 3, "ds one": 2, "rc one": 3}; !maps.Equal(got, want) {
			t.Errorf("pods: got %v, want %v", got, want)
		}
		patch := []byte(`[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"two"}]`)
		for _, change := range []func() error{
			func() error {
				_, err := client.For[*appsv1.Deployment](api).Patch(ctx, "default", "deploy", types.JSONPatchType, patch, "")
				return err
			},
			func() error {
				_, err := client.For[*appsv1.StatefulSet](api).Patch(ctx, "default", "sts", types.JSONPatchType, patch, "")
				return err
			},
			func() error {
				_, err := client.For[*appsv1.DaemonSet](api).Patch(ctx, "default", "ds", types.JSONPatchType, patch, "")
				return err
			},
		} {
			if err := change(); err != nil {
				t.Fatal(err)
			}
		}
		settle()
		if got, want := images(t, api), map[string]int{"deploy two": 3, "sts two": 3, "ds two": 2, "rc one": 3}; !maps.Equal(got, want) {
			t.Errorf("pods after the rollout: got %v, want %v", got, want)
		}
		counted(t, api)
		if faults.Met() < 10 {
			t.Errorf("only %d kinds of calls were made to fail", faults.Met())
		}
	})
}

// counted checks what the workloads made besides pods, and what they say.
func counted(t *testing.T, api client.Interface) {
	t.Helper()
	ctx := t.Context()
	sets, err := client.For[*appsv1.ReplicaSet](api).List(ctx, "default", metav1.ListOptions{})
	if err != nil || len(sets) != 2 {
		t.Errorf("%d replica sets, want 2 (%v)", len(sets), err)
	}
	revisions, err := client.For[*appsv1.ControllerRevision](api).List(ctx, "default", metav1.ListOptions{})
	var numbers []string
	for _, r := range revisions {
		numbers = append(numbers, r.Labels["app"]+strconv.FormatInt(r.Revision, 10))
	}
	if slices.Sort(numbers); err != nil || !slices.Equal(numbers, []string{"ds1", "ds2", "sts1", "sts2"}) {
		t.Errorf("revisions %v (%v)", numbers, err)
	}
	claims, err := client.For[*corev1.PersistentVolumeClaim](api).List(ctx, "default", metav1.ListOptions{})
	if err != nil || len(claims) != 3 {
		t.Errorf("%d claims, want 3 (%v)", len(claims), err)
	}
	sts, err := client.For[*appsv1.StatefulSet](api).Get(ctx, "default", "sts")
	if err != nil || sts.Status.CurrentRevision != sts.Status.UpdateRevision || sts.Status.CurrentReplicas != 3 || sts.Status.AvailableReplicas != 3 {
		t.Errorf("stateful set says %+v (%v)", sts.Status, err)
	}
	ds, err := client.For[*appsv1.DaemonSet](api).Get(ctx, "default", "ds")
	if err != nil || ds.Status.UpdatedNumberScheduled != 2 || ds.Status.NumberAvailable != 2 || ds.Status.NumberUnavailable != 0 {
		t.Errorf("daemon set says %+v (%v)", ds.Status, err)
	}
	rc, err := client.For[*corev1.ReplicationController](api).Get(ctx, "default", "rc")
	if err != nil || rc.Status.AvailableReplicas != 3 || rc.Status.ObservedGeneration != rc.Generation {
		t.Errorf("replication controller says %+v (%v)", rc.Status, err)
	}
}
