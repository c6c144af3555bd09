// SPDX-License-Identifier: Apache-2.0

package fieldset_test

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"kaji/internal/api/catalog"
	"kaji/internal/apiserver/fieldset"
	"kaji/internal/apiserver/openapi"
	"kaji/internal/apiserver/request"
)

// somePod is a pod as a Deployment makes it, with its status.
func somePod() *corev1.Pod {
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "web-6d4b75cb6d-", Namespace: "default", Labels: map[string]string{"app": "web", "pod-template-hash": "6d4b75cb6d"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-6d4b75cb6d", UID: "1"}},
		},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSClusterFirst, ServiceAccountName: "default", NodeName: "n",
			SecurityContext: &corev1.PodSecurityContext{}, SchedulerName: "default-scheduler",
			Tolerations: []corev1.Toleration{{Key: "a", Operator: "Exists", Effect: "NoExecute"}, {Key: "b", Operator: "Exists", Effect: "NoExecute"}},
			Volumes:     []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodPending},
	}
	for _, name := range []string{"one", "two"} {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
			Name: name, Image: "registry.example/web:1", ImagePullPolicy: corev1.PullIfNotPresent,
			Env:          []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "2"}},
			Ports:        []corev1.ContainerPort{{Name: "http", ContainerPort: 80, Protocol: corev1.ProtocolTCP}},
			Resources:    corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("64Mi")}},
			VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc/c", ReadOnly: true}},
		})
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodConditionType(name), Status: "True"})
	}
	return pod
}

// BenchmarkFields works out what a pod's creation, and a change of its status,
// own: by the library alone, and by this package.
func BenchmarkFields(b *testing.B) {
	types := openapi.New(openapi.Config{Kinds: request.NewKinds(catalog.All()...)}).TypeConverter()
	empty, pod := &corev1.Pod{TypeMeta: somePod().TypeMeta}, somePod()
	none, err := types.ObjectToTyped(empty)
	if err != nil {
		b.Fatal(err)
	}
	plan, ok := fieldset.Compile(reflect.TypeOf(pod), none.Schema(), none.TypeRef())
	if !ok {
		b.Fatal("no plan for pods")
	}
	running := somePod()
	running.Status.Phase = corev1.PodRunning
	compare := func(from, to runtime.Object) {
		x, err := types.ObjectToTyped(from, typed.AllowDuplicates)
		if err != nil {
			b.Fatal(err)
		}
		y, err := types.ObjectToTyped(to, typed.AllowDuplicates)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := x.Compare(y); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("created, library", func(b *testing.B) {
		for b.Loop() {
			compare(empty, pod)
		}
	})
	b.Run("created", func(b *testing.B) {
		for b.Loop() {
			if _, ok := plan.Created(pod, nil, nil); !ok {
				b.Fatal("left to the library")
			}
		}
	})
	b.Run("changed, library", func(b *testing.B) {
		for b.Loop() {
			compare(pod, running)
		}
	})
	b.Run("changed", func(b *testing.B) {
		for b.Loop() {
			x, y := fieldset.Changed(pod, running)
			compare(x.(runtime.Object), y.(runtime.Object))
		}
	})
}
