// SPDX-License-Identifier: Apache-2.0

package devicetainteviction_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/devicetainteviction"
)

type world struct {
	*bubble.Bubble
	pods   client.Typed[*corev1.Pod]
	claims client.Typed[*resourcev1.ResourceClaim]
	slices client.Typed[*resourcev1.ResourceSlice]
	rules  client.Typed[*resourcev1.DeviceTaintRule]
}

// run starts with pods "forever", "patient" and "none" that use a device each of
// the same name and differ in what they tolerate.
func run(t *testing.T, f func(w world)) {
	t.Helper()
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{devicetainteviction.New(devicetainteviction.Config{Client: api})}
	}
	bubble.RunAs(t, "device-taint-eviction-controller", start, func(b *bubble.Bubble) {
		w := world{b, client.For[*corev1.Pod](b.API), client.For[*resourcev1.ResourceClaim](b.API), client.For[*resourcev1.ResourceSlice](b.API), client.For[*resourcev1.DeviceTaintRule](b.API)}
		w.use("forever", "d0", resourcev1.DeviceToleration{Operator: resourcev1.DeviceTolerationOpExists, Effect: resourcev1.DeviceTaintEffectNoExecute})
		w.use("patient", "d1", resourcev1.DeviceToleration{Operator: resourcev1.DeviceTolerationOpExists, Effect: resourcev1.DeviceTaintEffectNoExecute, TolerationSeconds: ptr.To[int64](60)})
		w.use("none", "d2")
		w.Settle()
		f(w)
	})
}

// use makes a pod that runs with a device.
func (w world) use(name, device string, tolerations ...resourcev1.DeviceToleration) {
	w.Helper()
	claim := bubble.Must(w.claims.Create(w.Context(), &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "r",
			Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "class", Tolerations: tolerations}}}}}}))(w.Bubble)
	pod := bubble.Must(w.pods.Create(w.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{NodeName: "n", ResourceClaims: []corev1.PodResourceClaim{{Name: "c", ResourceClaimName: &name}},
			Containers: []corev1.Container{{Name: "c", Image: "i"}}}}))(w.Bubble)
	claim = claim.DeepCopy()
	claim.Finalizers = append(claim.Finalizers, resourcev1.Finalizer)
	claim = bubble.Must(w.claims.Update(w.Context(), claim))(w.Bubble).DeepCopy()
	claim.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{
		{Request: "r", Driver: "driver.example.com", Pool: "p", Device: device, Tolerations: tolerations}}}}
	claim.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: pod.Name, UID: pod.UID}}
	bubble.Must(w.claims.UpdateStatus(w.Context(), claim))(w.Bubble)
}

// left says which pods are not being deleted.
func (w world) left() string {
	w.Helper()
	var out []string
	for _, name := range []string{"forever", "none", "patient"} {
		pod, err := w.pods.Get(w.Context(), "default", name)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			w.Fatal(err)
		case pod.DeletionTimestamp == nil:
			out = append(out, name)
		default:
			if c := pod.Status.Conditions; len(c) != 1 || c[0].Type != corev1.DisruptionTarget || c[0].Reason != "DeletionByDeviceTaintManager" {
				w.Errorf("conditions of %s: %v", name, c)
			}
		}
	}
	return strings.Join(out, " ")
}

func (w world) rule(effect resourcev1.DeviceTaintEffect) {
	w.Helper()
	bubble.Must(w.rules.Create(w.Context(), &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "rule"}, Spec: resourcev1.DeviceTaintRuleSpec{
		DeviceSelector: &resourcev1.DeviceTaintSelector{Driver: ptr.To("driver.example.com")},
		Taint:          resourcev1.DeviceTaint{Key: "broken", Effect: effect}}}))(w.Bubble)
}

func (w world) condition() string {
	w.Helper()
	rule := bubble.Must(w.rules.Get(w.Context(), "", "rule"))(w.Bubble)
	if len(rule.Status.Conditions) != 1 {
		w.Fatalf("conditions: %v", rule.Status.Conditions)
	}
	c := rule.Status.Conditions[0]
	return strings.TrimSpace(c.Type + " " + string(c.Status) + " " + c.Reason + ": " + c.Message)
}

func TestRule(t *testing.T) {
	run(t, func(w world) {
		w.rule(resourcev1.DeviceTaintEffectNoExecute)
		w.Settle()
		if got := w.left(); got != "forever patient" {
			t.Errorf("after the taint %q are left", got)
		}
		if got := w.condition(); !strings.HasPrefix(got, "EvictionInProgress True PodsPendingEviction: ") {
			t.Error(got)
		}
		w.Wait(15 * time.Second)
		if got, want := w.condition(), "EvictionInProgress True PodsPendingEviction: 1 pod needs to be evicted in 1 namespace. 1 pod evicted since starting the controller."; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		w.Wait(time.Minute)
		if got := w.left(); got != "forever" {
			t.Errorf("after a minute %q are left", got)
		}
		w.Wait(15 * time.Second)
		if got, want := w.condition(), "EvictionInProgress False Completed: 2 pods evicted since starting the controller."; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// TestCancel: a rule that goes in time spares the pods.
func TestCancel(t *testing.T) {
	run(t, func(w world) {
		w.rule(resourcev1.DeviceTaintEffectNoExecute)
		w.Settle()
		if err := w.rules.Delete(w.Context(), "", "rule", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.Wait(2 * time.Minute)
		if got := w.left(); got != "forever patient" {
			t.Errorf("%q are left", got)
		}
		events := bubble.Must(client.For[*corev1.Event](w.API).List(w.Context(), "default", metav1.ListOptions{}))(w.Bubble)
		said := map[string]bool{}
		for _, e := range events {
			said[e.InvolvedObject.Name+" "+e.Reason+" "+e.Message] = true
		}
		for _, want := range []string{"none DeviceTaintManagerEviction Marking for deletion", "patient DeviceTaintManagerEviction Cancelling deletion"} {
			if !said[want] {
				t.Errorf("no event %q in %v", want, said)
			}
		}
	})
}

// TestNoEffect: a rule without an effect tells what it would do.
func TestNoEffect(t *testing.T) {
	run(t, func(w world) {
		w.slice(1, "")
		w.rule(resourcev1.DeviceTaintEffectNone)
		w.Wait(time.Minute)
		if got := w.left(); got != "forever none patient" {
			t.Errorf("%q are left", got)
		}
		want := "EvictionInProgress False NoEffect: 3 published devices selected. 3 allocated devices selected. 2 pods would be evicted in 1 namespace" +
			" if the effect was NoExecute. This information will not be updated again. Recreate the DeviceTaintRule to trigger an update."
		if got := w.condition(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// slice publishes three devices, all with a taint of the given effect.
func (w world) slice(generation int64, effect resourcev1.DeviceTaintEffect) {
	w.Helper()
	s := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{GenerateName: "s-"}, Spec: resourcev1.ResourceSliceSpec{Driver: "driver.example.com",
		Pool: resourcev1.ResourcePool{Name: "p", Generation: generation, ResourceSliceCount: 1}, NodeName: ptr.To("n")}}
	for _, name := range []string{"d0", "d1", "d2"} {
		d := resourcev1.Device{Name: name}
		if effect != "" {
			d.Taints = []resourcev1.DeviceTaint{{Key: "broken", Effect: effect}}
		}
		s.Spec.Devices = append(s.Spec.Devices, d)
	}
	bubble.Must(w.slices.Create(w.Context(), s))(w.Bubble)
}

// TestSlice: a driver's own taints count in the pool's newest generation only.
func TestSlice(t *testing.T) {
	run(t, func(w world) {
		w.slice(2, "")
		w.slice(1, resourcev1.DeviceTaintEffectNoExecute)
		w.Settle()
		if got := w.left(); got != "forever none patient" {
			t.Errorf("for an old generation, %q are left", got)
		}
		w.slice(3, resourcev1.DeviceTaintEffectNoSchedule)
		w.Settle()
		if got := w.left(); got != "forever none patient" {
			t.Errorf("for another effect, %q are left", got)
		}
		w.slice(4, resourcev1.DeviceTaintEffectNoExecute)
		w.Settle()
		if got := w.left(); got != "forever patient" {
			t.Errorf("%q are left", got)
		}
	})
}
