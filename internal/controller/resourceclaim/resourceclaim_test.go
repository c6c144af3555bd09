// SPDX-License-Identifier: Apache-2.0

package resourceclaim_test

import (
	"slices"
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
	"kaji/internal/controller/resourceclaim"
)

type world struct {
	*bubble.Bubble
	pods      client.Typed[*corev1.Pod]
	claims    client.Typed[*resourcev1.ResourceClaim]
	templates client.Typed[*resourcev1.ResourceClaimTemplate]
}

func run(t *testing.T, f func(w world)) {
	t.Helper()
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{resourceclaim.New(api, nil)}
	}
	bubble.RunAs(t, "resource-claim-controller", start, func(b *bubble.Bubble) {
		f(world{b, client.For[*corev1.Pod](b.API), client.For[*resourcev1.ResourceClaim](b.API), client.For[*resourcev1.ResourceClaimTemplate](b.API)})
	})
}

func claimSpec() resourcev1.ResourceClaimSpec {
	return resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "class"}}}}}
}

func (w world) template() {
	w.Helper()
	bubble.Must(w.templates.Create(w.Context(), &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "t"},
		Spec: resourcev1.ResourceClaimTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"l": "v"}, Annotations: map[string]string{"a": "b"}}, Spec: claimSpec()}}))(w.Bubble)
}

func (w world) pod(name, node string, asked ...corev1.PodResourceClaim) *corev1.Pod {
	w.Helper()
	p := bubble.Must(w.pods.Create(w.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{NodeName: node, ResourceClaims: asked, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}))(w.Bubble)
	w.Settle()
	return bubble.Must(w.pods.Get(w.Context(), "default", p.Name))(w.Bubble)
}

func (w world) all() []*resourcev1.ResourceClaim {
	w.Helper()
	return bubble.Must(w.claims.List(w.Context(), "default", metav1.ListOptions{}))(w.Bubble)
}

// allocate plays the scheduler.
func (w world) allocate(name string, pods ...*corev1.Pod) {
	w.Helper()
	claim := bubble.Must(w.claims.Get(w.Context(), "default", name))(w.Bubble).DeepCopy()
	claim.Finalizers = append(claim.Finalizers, resourcev1.Finalizer)
	claim = bubble.Must(w.claims.Update(w.Context(), claim))(w.Bubble).DeepCopy()
	claim.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{{Request: "r", Driver: "driver.example.com", Pool: "p", Device: "d"}}}}
	for _, p := range pods {
		claim.Status.ReservedFor = append(claim.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: p.Name, UID: p.UID})
	}
	bubble.Must(w.claims.UpdateStatus(w.Context(), claim))(w.Bubble)
	w.Settle()
}

func (w world) claim(name string) *resourcev1.ResourceClaim {
	w.Helper()
	return bubble.Must(w.claims.Get(w.Context(), "default", name))(w.Bubble)
}

// end lets a pod succeed.
func (w world) end(p *corev1.Pod) {
	w.Helper()
	p = bubble.Must(w.pods.Get(w.Context(), "default", p.Name))(w.Bubble).DeepCopy()
	p.Status.Phase = corev1.PodSucceeded
	bubble.Must(w.pods.UpdateStatus(w.Context(), p))(w.Bubble)
	w.Settle()
}

// A pod gets one claim for each template it names, as soon as there is one, and
// its status says which.
func TestByTemplate(t *testing.T) {
	run(t, func(w world) {
		p := w.pod("p", "", corev1.PodResourceClaim{Name: "one", ResourceClaimTemplateName: ptr.To("t")}, corev1.PodResourceClaim{Name: "two", ResourceClaimTemplateName: ptr.To("t")})
		if n := len(w.all()); n != 0 || len(p.Status.ResourceClaimStatuses) != 0 {
			w.Fatalf("%d claims without a template", n)
		}
		events := bubble.Must(client.For[*corev1.Event](w.API).List(w.Context(), "default", metav1.ListOptions{}))(w.Bubble)
		if len(events) != 1 || events[0].Reason != "FailedResourceClaimCreation" ||
			events[0].Message != `PodResourceClaim one: resource claim template "t": resourceclaimtemplate.resource.k8s.io "t" not found` {
			w.Errorf("events %+v", events)
		}
		w.template()
		w.Wait(5 * time.Minute) // the failures before made the pauses between tries long
		p = bubble.Must(w.pods.Get(w.Context(), "default", "p"))(w.Bubble)
		if s := p.Status.ResourceClaimStatuses; len(w.all()) != 2 || len(s) != 2 || s[0].Name != "one" || s[1].Name != "two" || *s[0].ResourceClaimName == *s[1].ResourceClaimName {
			w.Fatalf("%d claims, status %+v", len(w.all()), s)
		}
		claim := w.claim(*p.Status.ResourceClaimStatuses[0].ResourceClaimName)
		if o := claim.OwnerReferences; !strings.HasPrefix(claim.Name, "p-one-") || len(claim.Name) != len("p-one-")+5 || claim.GenerateName != "p-one-" || len(o) != 1 || o[0].UID != p.UID || !*o[0].Controller || o[0].BlockOwnerDeletion != nil ||
			claim.Labels["l"] != "v" || claim.Annotations["a"] != "b" || claim.Annotations["resource.kubernetes.io/pod-claim-name"] != "one" {
			w.Errorf("%+v", claim.ObjectMeta)
		}
		// One that someone deletes comes back.
		if err := w.claims.Delete(w.Context(), "default", claim.Name, metav1.DeleteOptions{}); err != nil {
			w.Fatal(err)
		}
		w.Settle()
		if n := len(w.all()); n != 2 {
			w.Errorf("%d claims after one was deleted", n)
		}
	})
}

// The last pod that ends frees a claim; one that was made for it goes.
func TestFreed(t *testing.T) {
	run(t, func(w world) {
		w.template()
		bubble.Must(w.claims.Create(w.Context(), &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "shared"}, Spec: claimSpec()}))(w.Bubble)
		shared := corev1.PodResourceClaim{Name: "s", ResourceClaimName: ptr.To("shared")}
		p := w.pod("p", "", shared, corev1.PodResourceClaim{Name: "own", ResourceClaimTemplateName: ptr.To("t")})
		q := w.pod("q", "", shared)
		own := *p.Status.ResourceClaimStatuses[0].ResourceClaimName
		w.allocate("shared", p, q)
		w.allocate(own, p)
		w.end(p)
		if c := w.claim("shared"); len(c.Status.ReservedFor) != 1 || c.Status.ReservedFor[0].UID != q.UID || c.Status.Allocation == nil {
			w.Errorf("while one pod is left: %+v", c.Status)
		}
		if _, err := w.claims.Get(w.Context(), "default", own); !apierrors.IsNotFound(err) {
			w.Errorf("the pod's own claim: %v", err)
		}
		if err := w.pods.Delete(w.Context(), "default", "q", metav1.DeleteOptions{}); err != nil {
			w.Fatal(err)
		}
		w.Settle()
		if c := w.claim("shared"); len(c.Status.ReservedFor) != 0 || c.Status.Allocation != nil {
			w.Errorf("without pods: %+v", c.Status)
		}
		if err := w.claims.Delete(w.Context(), "default", "shared", metav1.DeleteOptions{}); err != nil {
			w.Fatal(err)
		}
		w.Settle()
		if n := len(w.all()); n != 0 {
			w.Errorf("%d claims are left", n)
		}
	})
}

// A pod that came to its node without the scheduler has allocated claims
// reserved; consumers that are unknown are kept.
func TestReserved(t *testing.T) {
	run(t, func(w world) {
		bubble.Must(w.claims.Create(w.Context(), &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}, Spec: claimSpec()}))(w.Bubble)
		p := w.pod("p", "n", corev1.PodResourceClaim{Name: "c", ResourceClaimName: ptr.To("c")})
		w.allocate("c")
		claim := w.claim("c").DeepCopy()
		if r := claim.Status.ReservedFor; len(r) != 1 || r[0] != (resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: "p", UID: p.UID}) {
			w.Fatalf("reserved for %+v", r)
		}
		claim.Status.ReservedFor = append(claim.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{APIGroup: "example.com", Resource: "jobs", Name: "j", UID: "u"})
		bubble.Must(w.claims.UpdateStatus(w.Context(), claim))(w.Bubble)
		w.end(p)
		claim = w.claim("c")
		if r := claim.Status.ReservedFor; len(r) != 1 || r[0].Resource != "jobs" || claim.Status.Allocation == nil || !slices.Contains(claim.Finalizers, resourcev1.Finalizer) {
			w.Errorf("%+v", claim.Status)
		}
	})
}
