// SPDX-License-Identifier: Apache-2.0

package resourceclaim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
)

// fieldManager owns the names of claims in the status of pods.
const fieldManager = "ResourceClaimController"

func (c *Controller) reconcilePod(ctx context.Context, key queue.Key) error {
	pod, err := c.pods.Cached(key.Namespace, key.Name)
	if err != nil || pod.DeletionTimestamp != nil || done(pod) {
		return nil
	}
	made := map[string]string{}
	for i := range pod.Spec.ResourceClaims {
		asked := &pod.Spec.ResourceClaims[i]
		name, err := c.ensure(ctx, pod, asked)
		if err != nil {
			c.events.Record(ctx, pod, podKind, corev1.EventTypeWarning, "FailedResourceClaimCreation", "PodResourceClaim %s: %v", asked.Name, err)
			return fmt.Errorf("pod %s, PodResourceClaim %s: %w", key, asked.Name, err)
		}
		if name != "" {
			made[asked.Name] = name
		}
	}
	if len(made) > 0 {
		if err := c.name(ctx, pod, made); err != nil {
			return fmt.Errorf("update pod %s ResourceClaimStatuses: %w", key, err)
		}
	}
	if pod.Spec.NodeName == "" {
		return nil // the scheduler reserves
	}
	return c.reserve(ctx, pod)
}

// ensure sees to it that a claim by template is there and returns its name,
// empty if the pod's status has it, or there is nothing to make.
func (c *Controller) ensure(ctx context.Context, pod *corev1.Pod, asked *corev1.PodResourceClaim) (string, error) {
	name, check, err := resourceclaim.Name(pod, asked)
	if err != nil && !errors.Is(err, resourceclaim.ErrClaimNotFound) {
		return "", fmt.Errorf("checking for claim before creating it: %w", err)
	}
	if err == nil {
		if name == nil {
			return "", nil
		}
		// Its user may have deleted it meanwhile.
		if claim, err := c.claims.Cached(pod.Namespace, *name); err == nil && (!check || resourceclaim.IsForPod(pod, claim, false) == nil) {
			return "", nil
		}
	}
	if asked.ResourceClaimTemplateName == nil {
		return "", nil
	}
	for _, claim := range c.claims.ByIndex(byOwner, string(pod.UID)) {
		if claim.Annotations[resourcev1.PodResourceClaimAnnotation] == asked.Name {
			return claim.Name, nil
		}
	}
	template, err := c.templates.Cached(pod.Namespace, *asked.ResourceClaimTemplateName)
	if err != nil {
		return "", fmt.Errorf("resource claim template %q: %w", *asked.ResourceClaimTemplateName,
			apierrors.NewNotFound(resourcev1.Resource("resourceclaimtemplate"), *asked.ResourceClaimTemplateName))
	}
	return c.create(ctx, pod, claimFrom(template, pod, asked.Name))
}

// create makes a claim. Its name, though it looks generated, is the same each
// time, so that a lost answer makes no second one.
func (c *Controller) create(ctx context.Context, pod *corev1.Pod, claim *resourcev1.ResourceClaim) (string, error) {
	made, err := c.claims.Create(ctx, claim)
	defer func() { meter.From(ctx).ResourceClaimMade(claim, err) }()
	if apierrors.IsAlreadyExists(err) {
		there, failure := c.claims.Get(ctx, claim.Namespace, claim.Name)
		if failure != nil {
			return "", failure
		}
		if resourceclaim.IsForPod(pod, there, false) == nil {
			return there.Name, nil
		}
		claim.Name = "" // another has the name
		made, err = c.claims.Create(ctx, claim)
	}
	if err != nil {
		return "", fmt.Errorf("create ResourceClaim %s: %w", "", err) // upstream names it before it has a name
	}
	return made.Name, nil
}

// claimFrom returns the claim of a template for a pod.
func claimFrom(template *resourcev1.ResourceClaimTemplate, pod *corev1.Pod, asked string) *resourcev1.ResourceClaim {
	const longest = 57 // leaves room for a hyphen and five random characters
	prefix := pod.Name + "-" + asked + "-"
	if n := len(prefix); n > longest {
		prefix = pod.Name[:len(pod.Name)*longest/n] + "-" + asked[:len(asked)*longest/n]
	}
	hash := fnv.New32a()
	fmt.Fprint(hash, pod.UID, "/", asked)
	annotations := maps.Clone(template.Spec.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[resourcev1.PodResourceClaimAnnotation] = asked
	return &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, GenerateName: prefix, Name: prefix + rand.SafeEncodeString(fmt.Sprintf("%010d", hash.Sum32()))[5:],
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: podKind.Kind, Name: pod.Name, UID: pod.UID, Controller: ptr.To(true)}},
			Annotations:     annotations, Labels: maps.Clone(template.Spec.Labels),
		},
		Spec: *template.Spec.Spec.DeepCopy(),
	}
}

// name writes the names of claims that were made into the pod's status.
func (c *Controller) name(ctx context.Context, pod *corev1.Pod, made map[string]string) error {
	for _, s := range pod.Status.ResourceClaimStatuses {
		if _, again := made[s.Name]; !again && s.ResourceClaimName != nil {
			made[s.Name] = *s.ResourceClaimName
		}
	}
	var statuses []corev1.PodResourceClaimStatus
	for _, asked := range slices.Sorted(maps.Keys(made)) {
		statuses = append(statuses, corev1.PodResourceClaimStatus{Name: asked, ResourceClaimName: ptr.To(made[asked])})
	}
	data, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": podKind.Kind, "metadata": map[string]any{"namespace": pod.Namespace, "name": pod.Name, "uid": pod.UID},
		"status": map[string]any{"resourceClaimStatuses": statuses},
	})
	if err != nil {
		return err
	}
	where := client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("pods"), Namespace: pod.Namespace, Subresource: "status"}
	_, err = c.api.Patch(ctx, where, pod.Name, types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: fieldManager, Force: ptr.To(true)})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// reserve reserves allocated claims for a pod that has its node already.
func (c *Controller) reserve(ctx context.Context, pod *corev1.Pod) error {
	for i := range pod.Spec.ResourceClaims {
		name, check, err := resourceclaim.Name(pod, &pod.Spec.ResourceClaims[i])
		if err != nil || name == nil {
			continue // the change of the status comes back here
		}
		claim, err := c.claims.Cached(pod.Namespace, *name)
		if err != nil {
			continue
		}
		if check {
			if err := resourceclaim.IsForPod(pod, claim, false); err != nil {
				return err
			}
		}
		if !reservable(pod, claim) {
			continue
		}
		claim = claim.DeepCopy()
		claim.Status.ReservedFor = append(claim.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
		if _, err := c.claims.UpdateStatus(ctx, claim); err != nil {
			return fmt.Errorf("reserve claim %s/%s for pod: %w", claim.Namespace, claim.Name, err)
		}
	}
	return nil
}
