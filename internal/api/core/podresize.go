// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/badvalue"
	"kaji/internal/api/podspec"
)

// prepareEphemeralContainers keeps everything but the ephemeral containers.
func prepareEphemeralContainers(_ context.Context, p, old *corev1.Pod) {
	ephemeral := p.Spec.EphemeralContainers
	p.Spec, p.Status = *old.Spec.DeepCopy(), old.Status
	metav1.ResetObjectMetaForStatus(&p.ObjectMeta, &old.ObjectMeta)
	p.Spec.EphemeralContainers = ephemeral
	podspec.DropDisabled(&p.Spec, &old.Spec)
	bumpPodGeneration(p, old)
}

func isMirrorPod(p *corev1.Pod) bool {
	_, ok := p.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

func validateEphemeralContainers(p, old *corev1.Pod) field.ErrorList {
	if isMirrorPod(old) {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers")}
	}
	errs := validatePodSpec(p, &old.Spec)
	now := map[string]*corev1.EphemeralContainer{}
	for i := range p.Spec.EphemeralContainers {
		now[p.Spec.EphemeralContainers[i].Name] = &p.Spec.EphemeralContainers[i]
	}
	path := field.NewPath("spec", "ephemeralContainers")
	for i := range old.Spec.EphemeralContainers {
		before := &old.Spec.EphemeralContainers[i]
		if c, ok := now[before.Name]; !ok {
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", before.Name)))
		} else if !apiequality.Semantic.DeepEqual(before, c) {
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be changed\n%v", before.Name,
				diff.Diff(badvalue.Of(before), badvalue.Of(c)))))
		}
	}
	return errs
}

// preparePodResize keeps everything but the resources and resize policies of
// the containers, and the resources of the pod (KEPs 1287 and 5419).
func preparePodResize(_ context.Context, p, old *corev1.Pod) {
	if sameContainers(p.Spec.Containers, old.Spec.Containers) && sameContainers(p.Spec.InitContainers, old.Spec.InitContainers) {
		kept := *old.Spec.DeepCopy()
		kept.Resources = p.Spec.Resources
		takeResources(kept.Containers, p.Spec.Containers)
		takeResources(kept.InitContainers, p.Spec.InitContainers)
		p.Spec, p.Status = kept, old.Status
		metav1.ResetObjectMetaForStatus(&p.ObjectMeta, &old.ObjectMeta)
		podspec.CompletePodResources(p)
	}
	podspec.DropDisabled(&p.Spec, &old.Spec)
	bumpPodGeneration(p, old)
}

// sameContainers says whether the containers are the same in the same order;
// where they are not, validation says so.
func sameContainers(now, old []corev1.Container) bool {
	if len(now) != len(old) {
		return false
	}
	for i := range now {
		if now[i].Name != old[i].Name {
			return false
		}
	}
	return true
}

func takeResources(kept, now []corev1.Container) {
	for i := range kept {
		kept[i].Resources, kept[i].ResizePolicy = now[i].Resources, now[i].ResizePolicy
	}
}

func validatePodResize(p, old *corev1.Pod) field.ErrorList {
	if isMirrorPod(old) {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods cannot be resized")}
	}
	if old.Spec.OS != nil && old.Spec.OS.Name == corev1.Windows {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "windows pods cannot be resized")}
	}
	path := field.NewPath("spec")
	errs := validatePodSpec(p, &old.Spec)
	if podspec.QOSClass(old) != podspec.ComputeQOSClass(p) {
		errs = append(errs, field.Invalid(path, p.Status.QOSClass, "Pod QOS Class may not change as a result of resizing"))
	}
	if !nodeResizes(old) {
		errs = append(errs, field.Forbidden(path, "Pod running on node without support for resize"))
	}
	rest := p.Spec.DeepCopy()
	if hasPodResources(old) || hasPodResources(p) {
		errs = append(errs, validatePodLevelResize(rest, p, old, path)...)
	}
	if len(old.Status.NodeAllocatableResourceClaimStatuses) > 0 {
		errs = append(errs, field.Forbidden(path, "pods with node allocatable resource claims cannot be resized"))
	}
	misplaced := validateContainerOrder(p.Spec.Containers, old.Spec.Containers, "containers", path)
	misplaced = append(misplaced, validateContainerOrder(p.Spec.InitContainers, old.Spec.InitContainers, "initContainers", path)...)
	if len(misplaced) > 0 {
		return append(errs, misplaced...)
	}
	for i := range old.Spec.InitContainers {
		errs = append(errs, validateKeptResources(&p.Spec.InitContainers[i].Resources, &old.Spec.InitContainers[i].Resources, path.Child("initContainers").Index(i).Child("resources"))...)
	}
	for i := range old.Spec.Containers {
		errs = append(errs, validateKeptResources(&p.Spec.Containers[i].Resources, &old.Spec.Containers[i].Resources, path.Child("containers").Index(i).Child("resources"))...)
	}
	for i := range rest.Containers {
		undoComputeResize(&rest.Containers[i], &old.Spec.Containers[i])
		if !apiequality.Semantic.DeepEqual(rest.Containers[i], old.Spec.Containers[i]) {
			errs = append(errs, field.Forbidden(path, "only cpu and memory resources are mutable"))
		}
	}
	for i := range rest.InitContainers {
		c, before := &rest.InitContainers[i], &old.Spec.InitContainers[i]
		resized := !apiequality.Semantic.DeepEqual(c, before)
		if podspec.IsSidecar(c) {
			undoComputeResize(c, before)
			if !apiequality.Semantic.DeepEqual(c, before) {
				errs = append(errs, field.Forbidden(path.Child("initContainers").Index(i), "only cpu and memory resources for init or sidecar containers are mutable"))
			}
		} else if resized {
			errs = append(errs, field.Forbidden(path, "resources for non-sidecar init containers are immutable"))
		}
	}
	if len(errs) == 0 && !apiequality.Semantic.DeepEqual(rest, &old.Spec) {
		errs = append(errs, field.Forbidden(path, "only cpu and memory resources are mutable"))
	}
	return errs
}

// nodeResizes says whether the node reports what containers have, as those that
// can resize them do; while nothing runs it cannot be known.
func nodeResizes(p *corev1.Pod) bool {
	for _, s := range p.Status.ContainerStatuses {
		if s.State.Running != nil {
			return s.Resources != nil
		}
	}
	return true
}

func hasPodResources(p *corev1.Pod) bool {
	return p.Spec.Resources != nil && len(p.Spec.Resources.Requests)+len(p.Spec.Resources.Limits) > 0
}

// validatePodLevelResize checks the resources of the pod as a whole, and undoes
// in rest what may change.
func validatePodLevelResize(rest *corev1.PodSpec, p, old *corev1.Pod, path *field.Path) field.ErrorList {
	before, now := old.Spec.Resources, p.Spec.Resources
	if before != nil && now == nil {
		return field.ErrorList{field.Forbidden(path.Child("resources"), "pod-level resources cannot be removed")}
	}
	var errs field.ErrorList
	if before == nil {
		before = &corev1.ResourceRequirements{}
	} else {
		if removes(now.Requests, before.Requests) {
			errs = append(errs, field.Forbidden(path.Child("resources", "requests"), "pod-level resource requests cannot be removed"))
		}
		if removes(now.Limits, before.Limits) {
			errs = append(errs, field.Forbidden(path.Child("resources", "limits"), "pod-level resource limits cannot be removed"))
		}
	}
	rest.Resources.Requests = withCompute(rest.Resources.Requests, before.Requests)
	rest.Resources.Limits = withCompute(rest.Resources.Limits, before.Limits)
	if old.Spec.Resources == nil && len(rest.Resources.Requests)+len(rest.Resources.Limits)+len(rest.Resources.Claims) == 0 {
		rest.Resources = nil
	}
	if !apiequality.Semantic.DeepEqual(rest.Resources, old.Spec.Resources) {
		errs = append(errs, field.Forbidden(path, "only cpu and memory resources are mutable at pod-level"))
	}
	return errs
}

func validateContainerOrder(now, old []corev1.Container, name string, p *field.Path) field.ErrorList {
	if len(now) != len(old) {
		return field.ErrorList{field.Forbidden(p.Child(name), name+" may not be added or removed on resize")}
	}
	var errs field.ErrorList
	for i := range old {
		if now[i].Name != old[i].Name {
			errs = append(errs, field.Forbidden(p.Child(name).Index(i).Child("name"), name+" may not be renamed or reordered on resize"))
		}
	}
	return errs
}

func validateKeptResources(now, old *corev1.ResourceRequirements, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if removes(now.Requests, old.Requests) {
		errs = append(errs, field.Forbidden(p.Child("requests"), "resource requests cannot be removed"))
	}
	if removes(now.Limits, old.Limits) {
		errs = append(errs, field.Forbidden(p.Child("limits"), "resource limits cannot be removed"))
	}
	return errs
}

func removes(now, old corev1.ResourceList) bool {
	for name := range old {
		if _, ok := now[name]; !ok {
			return true
		}
	}
	return false
}

// undoComputeResize gives a container the CPU and memory it had.
func undoComputeResize(c, old *corev1.Container) {
	c.Resources.Requests = withCompute(c.Resources.Requests, old.Resources.Requests)
	c.Resources.Limits = withCompute(c.Resources.Limits, old.Resources.Limits)
}

// withCompute is list with the CPU and memory of old.
func withCompute(list, old corev1.ResourceList) corev1.ResourceList {
	if list == nil && old == nil {
		return nil
	}
	out := corev1.ResourceList{}
	for name, q := range list {
		out[name] = q
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if q, ok := old[name]; ok {
			out[name] = q
		} else {
			delete(out, name)
		}
	}
	return out
}
