// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	resourcehelper "k8s.io/component-helpers/resource"

	"kaji/internal/api/podspec"
	"kaji/internal/api/rule"
)

// requests is what a quota puts before the name of a container's resource.
const requests = corev1.DefaultResourceRequestsPrefix

func pods() *Evaluator {
	return &Evaluator{
		Resource: corev1.Resource("pods"),
		measures: measuresPods, charges: chargesPod, frees: freesPod,
		inScope: podInScope, constrain: constrainPod, usage: podUsage,
	}
}

func asPod(obj runtime.Object) (*corev1.Pod, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, wrongType("*v1.Pod", obj)
	}
	return pod, nil
}

func measuresPods(name corev1.ResourceName) bool {
	switch name {
	case "count/pods", corev1.ResourcePods, corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage:
		return true
	}
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) ||
		strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix) || requestsExtended(name)
}

// requestsExtended says whether a quota's name is that of an extended resource,
// or of a device class that pods name as one.
func requestsExtended(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), requests) &&
		(!rule.IsNative(name) || strings.HasPrefix(string(name), corev1.ResourceImplicitExtendedClaimsPerClass))
}

func chargesPod(w Write) bool {
	switch {
	case w.Subresource == "resize":
		return !w.Create
	case w.Subresource != "":
		return false
	case w.Create:
		return true
	}
	// An update can move a pod to the scope of pods with a deadline.
	now, err := asPod(w.Object)
	if err != nil {
		return false
	}
	old, err := asPod(w.Old)
	return err == nil && terminating(old) != terminating(now)
}

func freesPod(oldObj, nowObj runtime.Object) bool {
	old, err := asPod(oldObj)
	if err != nil {
		return false
	}
	now, err := asPod(nowObj)
	if err != nil {
		return false
	}
	return terminating(old) != terminating(now) || charged(old) && !charged(now) || resourcesChanged(old, now)
}

// resourcesChanged says whether a resize went a step further.
func resourcesChanged(old, now *corev1.Pod) bool {
	if old == now {
		return false
	}
	same := equality.Semantic.DeepEqual
	if !same(old.Spec.Resources, now.Spec.Resources) || !same(old.Status.Resources, now.Status.Resources) ||
		!same(old.Status.AllocatedResources, now.Status.AllocatedResources) {
		return true
	}
	containers := func(a, b corev1.Container) bool { return same(a.Resources, b.Resources) }
	if !slices.EqualFunc(old.Spec.Containers, now.Spec.Containers, containers) ||
		!slices.EqualFunc(old.Spec.InitContainers, now.Spec.InitContainers, containers) {
		return true
	}
	statuses := func(a, b corev1.ContainerStatus) bool {
		return same(a.AllocatedResources, b.AllocatedResources) && same(a.Resources, b.Resources)
	}
	return len(old.Status.ContainerStatuses) == len(now.Status.ContainerStatuses) &&
		!slices.EqualFunc(old.Status.ContainerStatuses, now.Status.ContainerStatuses, statuses)
}

// mustBeNamed says whether every container must say how much it takes of a
// quota's name. Only CPU and memory ever asked for that.
func mustBeNamed(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory:
		return true
	}
	return false
}

func constrainPod(required []corev1.ResourceName, obj runtime.Object) error {
	pod, err := asPod(obj)
	if err != nil {
		return err
	}
	if resourcehelper.IsPodLevelResourcesSet(pod) {
		return nil // the pod says it as a whole
	}
	var missing []string
	for _, name := range required { // sorted
		if !mustBeNamed(name) {
			continue
		}
		var silent []string
		for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
			for i := range containers {
				r := &containers[i].Resources
				if _, ok := computeUsage(r.Requests, r.Limits)[name]; !ok {
					silent = append(silent, containers[i].Name)
				}
			}
		}
		if len(silent) > 0 {
			slices.Sort(silent)
			missing = append(missing, fmt.Sprintf("%s for: %s", name, strings.Join(silent, ",")))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("must specify %s", strings.Join(missing, "; "))
}

func podUsage(obj runtime.Object) (corev1.ResourceList, error) {
	pod, err := asPod(obj)
	if err != nil {
		return nil, err
	}
	// Every stored pod is an object; only those that run take the rest.
	if !charged(pod) {
		return corev1.ResourceList{"count/pods": one()}, nil
	}
	options := resourcehelper.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true}
	used := computeUsage(resourcehelper.PodRequests(pod, options), resourcehelper.PodLimits(pod, options))
	used["count/pods"] = one()
	return used, nil
}

// computeUsage names requests and limits as quotas do.
func computeUsage(asked, limits corev1.ResourceList) corev1.ResourceList {
	used := corev1.ResourceList{corev1.ResourcePods: one()}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if q, ok := asked[name]; ok {
			used[name], used[requests+name] = q, q
		}
		if q, ok := limits[name]; ok {
			used["limits."+name] = q
		}
	}
	for name, q := range asked {
		if rule.IsHugePages(name) {
			used[name], used[requests+name] = q, q
		}
		if rule.IsExtended(name) || strings.HasPrefix(string(name), resourcev1.ResourceDeviceClassPrefix) {
			used[requests+name] = q
		}
	}
	return used
}

// charged says whether a pod takes compute resources: it has not ended, and it
// is not stuck in its deletion.
func charged(pod *corev1.Pod) bool {
	if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		return false
	}
	if pod.DeletionTimestamp == nil || pod.DeletionGracePeriodSeconds == nil {
		return true
	}
	grace := time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
	return !time.Now().After(pod.DeletionTimestamp.Add(grace))
}

func terminating(pod *corev1.Pod) bool {
	return pod.Spec.ActiveDeadlineSeconds != nil && *pod.Spec.ActiveDeadlineSeconds >= 0
}

func podInScope(s Scope, obj runtime.Object) (bool, error) {
	pod, err := asPod(obj)
	if err != nil {
		return false, err
	}
	switch s.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return terminating(pod), nil
	case corev1.ResourceQuotaScopeNotTerminating:
		return !terminating(pod), nil
	case corev1.ResourceQuotaScopeBestEffort:
		return podspec.QOSClass(pod) == corev1.PodQOSBestEffort, nil
	case corev1.ResourceQuotaScopeNotBestEffort:
		return podspec.QOSClass(pod) != corev1.PodQOSBestEffort, nil
	case corev1.ResourceQuotaScopePriorityClass:
		return matchesValue(s, pod.Spec.PriorityClassName)
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return crossesNamespaces(pod.Spec.Affinity), nil
	}
	return false, nil
}

// crossesNamespaces says whether a pod's affinity looks at pods of other
// namespaces.
func crossesNamespaces(a *corev1.Affinity) bool {
	if a == nil {
		return false
	}
	var terms []corev1.PodAffinityTerm
	var weighted []corev1.WeightedPodAffinityTerm
	if a.PodAffinity != nil {
		terms = append(terms, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution...)
		weighted = append(weighted, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution...)
	}
	if a.PodAntiAffinity != nil {
		terms = append(terms, a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution...)
		weighted = append(weighted, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution...)
	}
	for i := range weighted {
		terms = append(terms, weighted[i].PodAffinityTerm)
	}
	return slices.ContainsFunc(terms, func(t corev1.PodAffinityTerm) bool {
		return len(t.Namespaces) != 0 || t.NamespaceSelector != nil
	})
}
