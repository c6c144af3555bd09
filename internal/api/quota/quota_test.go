// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

type values map[corev1.ResourceName]string

func list(v values) corev1.ResourceList {
	l := corev1.ResourceList{}
	for name, q := range v {
		l[name] = resource.MustParse(q)
	}
	return l
}

func show(l corev1.ResourceList) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(l)) {
		q := l[name]
		parts = append(parts, string(name)+"="+q.String())
	}
	return strings.Join(parts, " ")
}

func container(requests, limits values) corev1.Container {
	return corev1.Container{Name: "c", Resources: corev1.ResourceRequirements{Requests: list(requests), Limits: list(limits)}}
}

// What objects of each kind are charged.
func TestUsage(t *testing.T) {
	set := New(Devices{Classes: func() []*resourcev1.DeviceClass {
		return []*resourcev1.DeviceClass{{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}, Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: new("example.com/gpu")}}}
	}})
	for _, test := range []struct {
		of   schema.GroupResource
		obj  runtime.Object
		want string
	}{
		{corev1.Resource("pods"), &corev1.Pod{Spec: corev1.PodSpec{
			Overhead:   list(values{"cpu": "1m"}),
			Containers: []corev1.Container{container(values{"cpu": "1", "example.com/gpu": "2", "hugepages-2Mi": "4Mi"}, values{"memory": "1Gi"})},
		}}, "count/pods=1 cpu=1001m hugepages-2Mi=4Mi limits.memory=1Gi pods=1 requests.cpu=1001m requests.example.com/gpu=2 requests.hugepages-2Mi=4Mi"},
		{corev1.Resource("pods"), &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{container(values{"cpu": "1"}, nil)}},
			Status: corev1.PodStatus{Phase: corev1.PodFailed}}, "count/pods=1"},
		{corev1.Resource("services"), &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer,
			AllocateLoadBalancerNodePorts: new(false), Ports: []corev1.ServicePort{{Port: 1, NodePort: 30001}, {Port: 2}}}},
			"count/services=1 services=1 services.loadbalancers=1 services.nodeports=1"},
		{corev1.Resource("persistentvolumeclaims"), &corev1.PersistentVolumeClaim{
			Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: new("gold"), Resources: corev1.VolumeResourceRequirements{Requests: list(values{"storage": "1500m"})}},
		}, "count/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/requests.storage=2 persistentvolumeclaims=1 requests.storage=2"},
		{resourcev1.Resource("resourceclaims"), &resourcev1.ResourceClaim{Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
			{Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 2}},
			{FirstAvailable: []resourcev1.DeviceSubRequest{
				{DeviceClassName: "gpu", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1},
				{DeviceClassName: "nic", AllocationMode: resourcev1.DeviceAllocationModeAll},
			}},
		}}}}, "count/resourceclaims.resource.k8s.io=1 gpu.deviceclass.resource.k8s.io/devices=3 nic.deviceclass.resource.k8s.io/devices=32 " +
			"requests.deviceclass.resource.kubernetes.io/gpu=3 requests.deviceclass.resource.kubernetes.io/nic=32 requests.example.com/gpu=3"},
		{schema.GroupResource{Group: "apps", Resource: "deployments"}, &corev1.Pod{}, "count/deployments.apps=1"},
		{corev1.Resource("secrets"), &corev1.Secret{}, "count/secrets=1 secrets=1"},
	} {
		e := set.For(test.of)
		used, err := e.Usage(test.obj)
		if err != nil {
			t.Fatal(err)
		}
		if got := show(used); got != test.want {
			t.Errorf("%s: got  %s\nwant %s", test.of, got, test.want)
		}
		for name := range used {
			if name != "requests.deviceclass.resource.kubernetes.io/nic" && !e.Measures(name) {
				t.Errorf("%s is used and not measured", name)
			}
		}
	}
}

func TestScopes(t *testing.T) {
	across := &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{
		{PodAffinityTerm: corev1.PodAffinityTerm{NamespaceSelector: &metav1.LabelSelector{}}}}}}
	idle := &corev1.Pod{Spec: corev1.PodSpec{Affinity: across, Containers: []corev1.Container{{}}}}
	busy := &corev1.Pod{Spec: corev1.PodSpec{PriorityClassName: "high", ActiveDeadlineSeconds: new(int64(1)), Containers: []corev1.Container{container(values{"cpu": "1"}, nil)}}}
	claim := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{VolumeAttributesClassName: new("slow")},
		Status: corev1.PersistentVolumeClaimStatus{CurrentVolumeAttributesClassName: new("fast")}}
	exists := func(name corev1.ResourceQuotaScope) Scope { return Scope{ScopeName: name, Operator: "Exists"} }
	for _, test := range []struct {
		obj   runtime.Object
		of    string
		scope Scope
		want  bool
	}{
		{idle, "pods", exists("BestEffort"), true}, {busy, "pods", exists("BestEffort"), false},
		{idle, "pods", exists("NotBestEffort"), false}, {busy, "pods", exists("NotBestEffort"), true},
		{idle, "pods", exists("Terminating"), false}, {busy, "pods", exists("Terminating"), true},
		{idle, "pods", exists("NotTerminating"), true}, {busy, "pods", exists("NotTerminating"), false},
		{idle, "pods", exists("CrossNamespacePodAffinity"), true}, {busy, "pods", exists("CrossNamespacePodAffinity"), false},
		{idle, "pods", exists("PriorityClass"), false}, {busy, "pods", exists("PriorityClass"), true},
		{busy, "pods", Scope{ScopeName: "PriorityClass", Operator: "In", Values: []string{"low", "high"}}, true},
		{busy, "pods", Scope{ScopeName: "PriorityClass", Operator: "NotIn", Values: []string{"high"}}, false},
		{idle, "pods", Scope{ScopeName: "PriorityClass", Operator: "NotIn", Values: []string{"high"}}, true},
		{idle, "pods", Scope{ScopeName: "PriorityClass", Operator: "DoesNotExist"}, true},
		{busy, "pods", exists("VolumeAttributesClass"), false},
		{claim, "persistentvolumeclaims", Scope{ScopeName: "VolumeAttributesClass", Operator: "In", Values: []string{"fast"}}, true},
		{claim, "persistentvolumeclaims", Scope{ScopeName: "VolumeAttributesClass", Operator: "In", Values: []string{"other"}}, false},
		{&corev1.PersistentVolumeClaim{}, "persistentvolumeclaims", exists("VolumeAttributesClass"), false},
	} {
		in, err := New(Devices{}).For(corev1.Resource(test.of)).InScopes([]Scope{test.scope}, test.obj)
		if err != nil || (len(in) == 1) != test.want {
			t.Errorf("%s %v: got %v, %v", test.of, test.scope, in, err)
		}
	}
}

// A claim that was made for a pod's extended resource is not charged twice.
func TestExtendedClaim(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"}, Spec: corev1.PodSpec{Containers: []corev1.Container{container(values{"example.com/gpu": "2"}, nil)}}}
	d := Devices{
		Classes: func() []*resourcev1.DeviceClass {
			return []*resourcev1.DeviceClass{{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}, Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: new("example.com/gpu")}}}
		},
		Pod: func(_, name string) *corev1.Pod { return p },
	}
	c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{
		Annotations:     map[string]string{resourcev1.ExtendedResourceClaimAnnotation: "true"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "u", Controller: new(true)}},
	}}
	c.Spec.Devices.Requests = []resourcev1.DeviceRequest{{Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu", AllocationMode: "ExactCount", Count: 2}}}
	used, err := New(d).For(resourcev1.Resource("resourceclaims")).Usage(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, twice := used["requests.example.com/gpu"]; twice {
		t.Errorf("charged again: %s", show(used))
	}
}

func TestIgnored(t *testing.T) {
	for _, gr := range []schema.GroupResource{{Resource: "events"}, {Group: "events.k8s.io", Resource: "events"}, {Resource: "bindings"}} {
		if New(Devices{}).For(gr) != nil {
			t.Errorf("%s is measured", gr)
		}
	}
	if all := New(Devices{}).Measuring(list(values{"count/events": "1", "nonsense": "1"})); len(all) != 0 {
		t.Error(fmt.Sprint(all))
	}
}
