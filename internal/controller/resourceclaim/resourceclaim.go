// SPDX-License-Identifier: Apache-2.0

// Package resourceclaim makes the ResourceClaims that pods ask for by template,
// reserves claims for pods that came to their node without the scheduler, and
// takes claims back from pods that need them no more: the last one's allocation
// ends, and a claim made for a pod goes (KEP-4381). The controller manager runs
// it; the scheduler allocates.
package resourceclaim

import (
	"context"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/dynamic-resource-allocation/resourceclaim"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
)

const (
	workers = 10
	// The informer's indexes: pods by the claims they use and by the templates
	// they name, claims by the pod that owns them.
	byClaim    = "controller.resourceclaim"
	byTemplate = "controller.resourceclaimtemplate"
	byOwner    = "controller.owningpod"
)

var podKind = corev1.SchemeGroupVersion.WithKind("Pod")

// Controller makes and frees claims.
type Controller struct {
	api       client.Interface
	pods      client.Typed[*corev1.Pod]
	claims    client.Typed[*resourcev1.ResourceClaim]
	templates client.Typed[*resourcev1.ResourceClaimTemplate]
	events    *event.Recorder
	podQueue  *queue.Queue[queue.Key]
	queue     *queue.Queue[queue.Key] // claims
	freeing   sync.Map                // the claims whose allocation is being ended: their UIDs by queue.Key
}

// New returns the controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{api: api, pods: client.For[*corev1.Pod](api), claims: client.For[*resourcev1.ResourceClaim](api),
		templates: client.For[*resourcev1.ResourceClaimTemplate](api), events: event.New(api, "resource_claim", log)}
	c.podQueue, c.queue = queue.New("resource_claim_pods", log, c.reconcilePod), queue.New("resource_claim", log, c.reconcile)
	c.pods.AddIndex(byClaim, claimsOf)
	c.pods.AddIndex(byTemplate, templatesOf)
	c.claims.AddIndex(byOwner, func(claim *resourcev1.ResourceClaim) []string {
		if owner := owningPod(claim); owner != nil {
			return []string{string(owner.UID)}
		}
		return nil
	})
	c.pods.AddHandler(client.Handler[*corev1.Pod]{
		Add:    func(pod *corev1.Pod) { c.podChanged(pod, false) },
		Update: func(_, pod *corev1.Pod) { c.podChanged(pod, false) },
		Delete: func(pod *corev1.Pod) { c.podChanged(pod, true) },
	})
	c.claims.AddHandler(client.Handler[*resourcev1.ResourceClaim]{
		Add:    c.claimChanged,
		Update: func(_, claim *resourcev1.ResourceClaim) { c.claimChanged(claim) },
		Delete: c.claimChanged,
	})
	wake := func(t *resourcev1.ResourceClaimTemplate) {
		for _, pod := range c.pods.ByIndex(byTemplate, t.Namespace+"/"+t.Name) {
			c.podChanged(pod, false)
		}
	}
	c.templates.AddHandler(client.Handler[*resourcev1.ResourceClaimTemplate]{Add: wake, Update: func(_, t *resourcev1.ResourceClaimTemplate) { wake(t) }})
	return c
}

// Run makes and frees claims until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if !client.WaitForSync(ctx, c.pods.Informer(), c.claims.Informer(), c.templates.Informer()) {
		return nil
	}
	meter.From(ctx).ResourceClaims(func() []*resourcev1.ResourceClaim { return c.claims.CachedList("", nil) })
	var group sync.WaitGroup
	group.Go(func() { c.podQueue.Run(ctx, workers) })
	c.queue.Run(ctx, workers)
	group.Wait()
	return nil
}

func claimsOf(pod *corev1.Pod) (out []string) {
	for name := range resourceclaim.PodClaims(pod) {
		out = append(out, pod.Namespace+"/"+name)
	}
	return out
}

func templatesOf(pod *corev1.Pod) (out []string) {
	for i := range pod.Spec.ResourceClaims {
		if name := pod.Spec.ResourceClaims[i].ResourceClaimTemplateName; name != nil {
			out = append(out, pod.Namespace+"/"+*name)
		}
	}
	return out
}

// owningPod is the pod that a claim was made for, nil without one.
func owningPod(claim *resourcev1.ResourceClaim) *metav1.OwnerReference {
	if ref := metav1.GetControllerOf(claim); ref != nil && ref.APIVersion == "v1" && ref.Kind == podKind.Kind {
		return ref
	}
	return nil
}

// done says whether no container of a pod runs, or ever will.
func done(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || pod.DeletionTimestamp != nil && pod.Spec.NodeName == ""
}

func (c *Controller) podChanged(pod *corev1.Pod, gone bool) {
	if len(pod.Spec.ResourceClaims) == 0 && pod.Status.ExtendedResourceClaimStatus == nil {
		return
	}
	if gone || done(pod) {
		for name := range resourceclaim.PodClaims(pod) {
			c.queue.Add(queue.Key{Namespace: pod.Namespace, Name: name})
		}
	}
	if !gone && pod.DeletionTimestamp == nil && !done(pod) && c.lacks(pod) {
		c.podQueue.Add(queue.Key{Namespace: pod.Namespace, Name: pod.Name})
	}
}

// lacks says whether a pod misses a claim or its reservation, so that most
// changes of pods cost nothing more.
func (c *Controller) lacks(pod *corev1.Pod) bool {
	for i := range pod.Spec.ResourceClaims {
		asked := &pod.Spec.ResourceClaims[i]
		name, check, err := resourceclaim.Name(pod, asked)
		if err != nil {
			return true
		}
		if name == nil {
			continue
		}
		claim, err := c.claims.Cached(pod.Namespace, *name)
		if err != nil {
			if asked.ResourceClaimTemplateName != nil {
				return true
			}
			continue // its user is to make it
		}
		if check && resourceclaim.IsForPod(pod, claim, false) != nil {
			return true
		}
		if pod.Spec.NodeName != "" && reservable(pod, claim) {
			return true
		}
	}
	return false
}

func reservable(pod *corev1.Pod, claim *resourcev1.ResourceClaim) bool {
	return claim.Status.Allocation != nil && !resourceclaim.IsReservedForPod(pod, claim, false) && resourceclaim.CanBeReserved(claim)
}

// claimChanged looks at the claim and at the pods that use it.
func (c *Controller) claimChanged(claim *resourcev1.ResourceClaim) {
	c.queue.Add(queue.Key{Namespace: claim.Namespace, Name: claim.Name})
	for _, pod := range c.pods.ByIndex(byClaim, claim.Namespace+"/"+claim.Name) {
		c.podChanged(pod, false)
	}
}
