// SPDX-License-Identifier: Apache-2.0

package scheduler_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
)

// device makes a class of one driver and a slice with one device on a node.
func device(w *world, nodeName string, change func(*resourcev1.Device)) {
	create(w, &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}})
	d := resourcev1.Device{Name: "d0"}
	if change != nil {
		change(&d)
	}
	create(w, &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "slice-" + nodeName}, Spec: resourcev1.ResourceSliceSpec{
		Driver: "gpu.example", NodeName: &nodeName, Pool: resourcev1.ResourcePool{Name: nodeName, ResourceSliceCount: 1}, Devices: []resourcev1.Device{d}}})
}

func claim(name string) *resourcev1.ResourceClaim {
	return &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{
		Requests: []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1}}}}}}
}

func claims(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "c", ResourceClaimName: &name}}
		p.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "c"}}
	}
}

// A claimed device decides the node, is taken once, and is free again when its
// claim is gone.
func TestClaimedDevice(t *testing.T) {
	w := start(t)
	create(w, node("n1", "4"))
	create(w, node("n2", "4"))
	device(w, "n2", nil)
	create(w, claim("a"))
	create(w, pod("first", "", claims("a")))
	w.lands("first", "n2")
	create(w, claim("b"))
	create(w, pod("second", "", claims("b")))
	w.refused("second", "0/2 nodes are available: 2 cannot allocate all claims. "+
		"preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.")
}

// A rule taints a device as its driver could.
func TestDeviceTaintRule(t *testing.T) {
	w := start(t)
	create(w, node("n1", "4"))
	device(w, "n1", nil)
	create(w, &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: resourcev1.DeviceTaintRuleSpec{
		DeviceSelector: &resourcev1.DeviceTaintSelector{Driver: ptr.To("gpu.example")},
		Taint:          resourcev1.DeviceTaint{Key: "broken", Effect: resourcev1.DeviceTaintEffectNoSchedule}}})
	create(w, claim("a"))
	create(w, pod("p", "", claims("a")))
	w.refused("p", "0/1 nodes are available: 1 cannot allocate all claims. "+
		"preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
	if err := client.For[*resourcev1.DeviceTaintRule](w).Delete(t.Context(), "", "r", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.lands("p", "n1")
}

// An extended resource that a class stands for is claimed for the pod, and no
// device is given to two pods.
func TestExtendedResourceByClass(t *testing.T) {
	w := start(t)
	create(w, node("n1", "4"))
	create(w, node("n2", "4"))
	device(w, "n2", nil)
	asks := func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"deviceclass.resource.kubernetes.io/gpu": resource.MustParse("1")}
		p.Spec.Containers[0].Resources.Limits = p.Spec.Containers[0].Resources.Requests
	}
	create(w, pod("first", "", asks))
	w.lands("first", "n2")
	st := w.pod("first").Status.ExtendedResourceClaimStatus
	if st == nil || len(st.RequestMappings) != 1 || st.RequestMappings[0].RequestName != "container-0-request-0" {
		t.Fatalf("extendedResourceClaimStatus is %+v", st)
	}
	c, err := client.For[*resourcev1.ResourceClaim](w).Get(t.Context(), "default", st.ResourceClaimName)
	if err != nil {
		t.Fatal(err)
	}
	if c.Status.Allocation == nil || len(c.Status.ReservedFor) != 1 || !metav1.IsControlledBy(c, w.pod("first")) {
		t.Errorf("claim is %+v", c)
	}
	create(w, pod("second", "", asks))
	w.refused("second", "0/2 nodes are available: 2 cannot allocate all claims. "+
		"preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.")
}

// A device that must be attached first holds the pod back, which says meanwhile
// where it is going to be.
func TestDeviceWithBindingConditions(t *testing.T) {
	w := start(t)
	create(w, node("n1", "4"))
	device(w, "n1", func(d *resourcev1.Device) {
		d.BindsToNode = ptr.To(true)
		d.BindingConditions = []string{"example.com/attached"}
		d.BindingFailureConditions = []string{"example.com/failed"}
	})
	create(w, claim("a"))
	create(w, pod("p", "", claims("a")))
	all := client.For[*resourcev1.ResourceClaim](w)
	w.eventually("the allocation", func() bool {
		c, err := all.Get(t.Context(), "default", "a")
		return err == nil && c.Status.Allocation != nil && c.Status.Allocation.AllocationTimestamp != nil
	})
	if p := w.pod("p"); p.Spec.NodeName != "" || p.Status.NominatedNodeName != "n1" {
		t.Errorf("before its device is attached: on %q, nominated for %q", p.Spec.NodeName, p.Status.NominatedNodeName)
	}
	c, err := all.Get(t.Context(), "default", "a")
	if err != nil {
		t.Fatal(err)
	}
	c.Status.Devices = []resourcev1.AllocatedDeviceStatus{{Driver: "gpu.example", Pool: "n1", Device: "d0", Conditions: []metav1.Condition{
		{Type: "example.com/attached", Status: metav1.ConditionTrue, Reason: "Done", LastTransitionTime: metav1.Now()}}}}
	if _, err := all.UpdateStatus(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	w.lands("p", "n1")
	if p := w.pod("p"); p.Status.NominatedNodeName != "" {
		t.Errorf("bound, and still nominated for %q", p.Status.NominatedNodeName)
	}
}

// A pod that needs a feature of the kubelet waits for a node that declares it.
func TestDeclaredFeatures(t *testing.T) {
	w := start(t)
	create(w, node("n1", "4"))
	create(w, pod("p", "", func(p *corev1.Pod) {
		c := &p.Spec.Containers[0]
		c.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyNever)
		c.RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers,
			ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}}}}
	}))
	w.refused("p", "0/1 nodes are available: 1 node(s) didn't match Pod's required features. "+
		"preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
	create(w, node("n2", "4", func(n *corev1.Node) {
		n.Status.DeclaredFeatures = []string{"RestartAllContainersOnContainerExits"}
	}))
	w.lands("p", "n2")
}
