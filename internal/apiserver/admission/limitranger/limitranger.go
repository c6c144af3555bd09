// SPDX-License-Identifier: Apache-2.0

// Package limitranger is the admission plug-in LimitRanger: containers that do
// not say get the requests and limits that the LimitRanges of their namespace
// name, and what is outside of those ranges is refused, for containers, whole
// pods and claims.
//
// The API server's admission chain calls it. A namespace without LimitRanges
// costs one look-up.
package limitranger

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	podresource "k8s.io/component-helpers/resource"

	"kaji/internal/api"
	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "LimitRanger"

// annotation tells what was filled in.
const annotation = "kubernetes.io/limit-ranger"

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct{ read admission.Reader }

var (
	_ admission.Mutator   = (*Plugin)(nil)
	_ admission.Validator = (*Plugin)(nil)
)

// New returns the plug-in; it reads LimitRanges from read.
func New(read admission.Reader) *Plugin { return &Plugin{read: read} }

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// concerns says whether a request may change what is limited: containers of
// pods are fixed once they run, but for their resources.
func concerns(a *admission.Attributes) bool {
	switch {
	case a.Is("", "pods", ""):
		return a.Operation == admission.Create
	case a.Is("", "pods", "resize"):
		return a.Operation == admission.Update
	}
	return a.Is("", "persistentvolumeclaims", "")
}

// Mutate implements admission.Mutator.
func (p *Plugin) Mutate(ctx context.Context, a *admission.Attributes) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || !concerns(a) {
		return nil
	}
	return p.each(ctx, a, func(r *corev1.LimitRange) error {
		fill(pod, r)
		return nil
	})
}

// Validate implements admission.Validator.
func (p *Plugin) Validate(ctx context.Context, a *admission.Attributes) error {
	if !concerns(a) {
		return nil
	}
	return p.each(ctx, a, func(r *corev1.LimitRange) error {
		var errs []error
		for i := range r.Spec.Limits {
			switch obj := a.Object.(type) {
			case *corev1.Pod:
				errs = append(errs, judgePod(&r.Spec.Limits[i], obj)...)
			case *corev1.PersistentVolumeClaim:
				errs = append(errs, judgeClaim(&r.Spec.Limits[i], obj)...)
			}
		}
		if err := utilerrors.NewAggregate(errs); err != nil {
			return a.Forbidden(err)
		}
		return nil
	})
}

// each calls do with the namespace's LimitRanges until one fails. What is being
// deleted is left alone.
func (p *Plugin) each(ctx context.Context, a *admission.Attributes, do func(*corev1.LimitRange) error) error {
	if old, ok := a.Old.(api.Object); ok && old.GetDeletionTimestamp() != nil {
		return nil
	}
	var failure error
	err := admission.Each(ctx, p.read, corev1.SchemeGroupVersion.WithKind("LimitRange"), a.Namespace, func(r *corev1.LimitRange) bool {
		failure = do(r)
		return failure == nil
	})
	if err != nil {
		return a.Forbidden(fmt.Errorf("unable to %s %v at this time because there was an error enforcing limit ranges", a.Operation, a.Resource))
	}
	return failure
}

// fill gives containers the range's defaults and writes down which.
func fill(pod *corev1.Pod, r *corev1.LimitRange) {
	var requests, limits corev1.ResourceList
	for i := range r.Spec.Limits {
		if l := &r.Spec.Limits[i]; l.Type == corev1.LimitTypeContainer {
			requests, limits = join(requests, l.DefaultRequest), join(limits, l.Default)
		}
	}
	if len(requests) == 0 && len(limits) == 0 {
		return
	}
	var said []string
	for i := range pod.Spec.Containers {
		said = append(said, fillContainer(&pod.Spec.Containers[i], "container", requests, limits)...)
	}
	for i := range pod.Spec.InitContainers {
		said = append(said, fillContainer(&pod.Spec.InitContainers[i], "init container", requests, limits)...)
	}
	if len(said) > 0 {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations[annotation] = "LimitRanger plugin set: " + strings.Join(said, "; ")
	}
}

// join returns a copy of one list with another one laid over it.
func join(list, over corev1.ResourceList) corev1.ResourceList {
	if list == nil {
		list = corev1.ResourceList{}
	}
	for name, q := range over {
		list[name] = q.DeepCopy()
	}
	return list
}

func fillContainer(c *corev1.Container, what string, requests, limits corev1.ResourceList) (said []string) {
	if set := missing(&c.Resources.Requests, requests); len(set) > 0 {
		said = append(said, strings.Join(set, ", ")+" request for "+what+" "+c.Name)
	}
	if set := missing(&c.Resources.Limits, limits); len(set) > 0 {
		said = append(said, strings.Join(set, ", ")+" limit for "+what+" "+c.Name)
	}
	return said
}

// missing adds what a list lacks and returns the names.
func missing(list *corev1.ResourceList, defaults corev1.ResourceList) (set []string) {
	for _, name := range slices.Sorted(maps.Keys(defaults)) {
		if _, has := (*list)[name]; has {
			continue
		}
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = defaults[name].DeepCopy()
		set = append(set, string(name))
	}
	return set
}

func judgePod(l *corev1.LimitRangeItem, pod *corev1.Pod) (errs []error) {
	switch l.Type {
	case corev1.LimitTypeContainer:
		for i := range pod.Spec.Containers {
			errs = append(errs, judge(l, pod.Spec.Containers[i].Resources.Requests, pod.Spec.Containers[i].Resources.Limits)...)
		}
		for i := range pod.Spec.InitContainers {
			errs = append(errs, judge(l, pod.Spec.InitContainers[i].Resources.Requests, pod.Spec.InitContainers[i].Resources.Limits)...)
		}
	case corev1.LimitTypePod:
		spec := podresource.PodResourcesOptions{ExcludeOverhead: true}
		errs = judge(l, podresource.PodRequests(pod, spec), podresource.PodLimits(pod, spec))
	}
	return errs
}

// judgeClaim compares what a claim requests; its limits mean nothing.
func judgeClaim(l *corev1.LimitRangeItem, claim *corev1.PersistentVolumeClaim) (errs []error) {
	if l.Type != corev1.LimitTypePersistentVolumeClaim {
		return nil
	}
	requests := claim.Spec.Resources.Requests
	for name, bound := range sorted(l.Min) {
		errs = append(errs, atLeast(l.Type, name, bound, requests, nil))
	}
	for name, bound := range sorted(l.Max) {
		errs = append(errs, requestAtMost(l.Type, name, bound, requests))
	}
	return errs
}

func judge(l *corev1.LimitRangeItem, requests, limits corev1.ResourceList) (errs []error) {
	for name, bound := range sorted(l.Min) {
		errs = append(errs, atLeast(l.Type, name, bound, requests, limits))
	}
	for name, bound := range sorted(l.Max) {
		errs = append(errs, atMost(l.Type, name, bound, requests, limits))
	}
	for name, bound := range sorted(l.MaxLimitRequestRatio) {
		errs = append(errs, ratio(l.Type, name, bound, requests, limits))
	}
	return errs
}
