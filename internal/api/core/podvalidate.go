// SPDX-License-Identifier: Apache-2.0

package core

import (
	"fmt"
	"math"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/badvalue"
	"kaji/internal/api/podspec"
)

// validatePodSpec checks what every version of a pod must be; old is the spec
// before an update, or nil.
func validatePodSpec(p *corev1.Pod, old *corev1.PodSpec) field.ErrorList {
	options := podspec.OptionsFor(old)
	options.Pod = true
	spec := field.NewPath("spec")
	errs := podspec.ValidateAnnotations(p.Annotations, &p.Spec, field.NewPath("metadata", "annotations"))
	errs = append(errs, podspec.Validate(&p.Spec, &p.ObjectMeta, spec, options)...)
	return append(errs, podspec.ValidateForPod(&p.Spec, spec)...)
}

func validatePod(p *corev1.Pod) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validatePodSpec(p, nil)
	if len(p.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("ephemeralContainers"), "cannot be set on create"))
	}
	if p.Spec.NodeName != "" && len(p.Spec.SchedulingGates) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	return append(errs, podspec.ValidateProfiles(p.Annotations, &p.Spec, spec)...)
}

// validatePodAnnotationUpdates keeps the annotations that the node has acted on.
func validatePodAnnotationUpdates(p, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("metadata", "annotations")
	var errs field.ErrorList
	check := func(key, verb string) {
		if strings.HasPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) {
			errs = append(errs, field.Forbidden(path.Key(key), "may not "+verb+" AppArmor annotations"))
		}
		if key == corev1.MirrorPodAnnotationKey {
			errs = append(errs, field.Forbidden(path.Key(key), "may not "+verb+" mirror pod annotation"))
		}
	}
	for key, before := range old.Annotations {
		if now, ok := p.Annotations[key]; !ok || now != before {
			check(key, "remove or update")
		}
	}
	for key := range p.Annotations {
		if _, ok := old.Annotations[key]; !ok {
			check(key, "add")
		}
	}
	return append(errs, podspec.ValidateAnnotations(p.Annotations, &p.Spec, path)...)
}

// What a pod's spec may change after its creation, for the message.
const updatablePodFields = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`," +
	"`spec.tolerations` (only additions to existing tolerations)," +
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

func validatePodUpdate(p, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("spec")
	errs := validatePodSpec(p, &old.Spec)
	errs = append(errs, validatePodAnnotationUpdates(p, old)...)
	for _, list := range []struct {
		name     string
		now, old []corev1.Container
	}{{"containers", p.Spec.Containers, old.Spec.Containers}, {"initContainers", p.Spec.InitContainers, old.Spec.InitContainers}} {
		path := path.Child(list.name)
		if len(list.now) != len(list.old) {
			return append(errs, field.Forbidden(path, "pod updates may not add or remove containers"))
		}
		for i, c := range list.now {
			if c.Image == "" {
				errs = append(errs, field.Required(path.Index(i).Child("image"), ""))
			}
			if c.Image != strings.TrimSpace(c.Image) {
				errs = append(errs, field.Invalid(path.Index(i).Child("image"), c.Image, "must not have leading or trailing whitespace"))
			}
		}
	}
	deadline := path.Child("activeDeadlineSeconds")
	switch now, before := p.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds; {
	case now != nil && (*now < 0 || *now > math.MaxInt32):
		return append(errs, field.Invalid(deadline, *now, validation.InclusiveRangeError(0, math.MaxInt32)))
	case now != nil && before != nil && *before < *now:
		return append(errs, field.Invalid(deadline, *now, "must be less than or equal to previous value"))
	case now == nil && before != nil:
		errs = append(errs, field.Invalid(deadline, nil, "must not update from a positive integer to nil value"))
	}
	errs = append(errs, validateAddedTolerations(p.Spec.Tolerations, old.Spec.Tolerations, path.Child("tolerations"))...)
	errs = append(errs, validateRemovedGates(p.Spec.SchedulingGates, old.Spec.SchedulingGates, path.Child("schedulingGates"))...)
	if apiequality.Semantic.DeepEqual(p.Spec, old.Spec) {
		return errs
	}

	// Undo what may change, and compare the rest.
	rest := p.Spec.DeepCopy()
	for i := range rest.Containers {
		rest.Containers[i].Image = old.Spec.Containers[i].Image
	}
	for i := range rest.InitContainers {
		rest.InitContainers[i].Image = old.Spec.InitContainers[i].Image
	}
	rest.ActiveDeadlineSeconds = old.Spec.ActiveDeadlineSeconds
	rest.SchedulingGates = old.Spec.SchedulingGates
	rest.Tolerations = old.Spec.Tolerations
	if before, now := old.Spec.TerminationGracePeriodSeconds, rest.TerminationGracePeriodSeconds; before != nil && *before < 0 && now != nil && *now == 1 {
		rest.TerminationGracePeriodSeconds = before
	}
	if len(old.Spec.SchedulingGates) > 0 {
		errs = append(errs, validateGatedPodUpdate(rest, &old.Spec, path)...)
	}
	if !apiequality.Semantic.DeepEqual(rest, &old.Spec) {
		errs = append(errs, field.Forbidden(path, fmt.Sprintf("pod updates may not change fields other than %s\n%v", updatablePodFields, podspec.Diff(&old.Spec, rest))))
	}
	return errs
}

func validateAddedTolerations(now, old []corev1.Toleration, p *field.Path) field.ErrorList {
	for _, before := range old {
		found := false
		for _, t := range now {
			before.TolerationSeconds = t.TolerationSeconds
			found = found || reflect.DeepEqual(before, t)
		}
		if !found {
			return field.ErrorList{field.Forbidden(p, "existing toleration can not be modified except its tolerationSeconds")}
		}
	}
	return podspec.ValidateTolerations(now, p)
}

func validateRemovedGates(now, old []corev1.PodSchedulingGate, p *field.Path) field.ErrorList {
	before := map[string]bool{}
	for _, gate := range old {
		before[gate.Name] = true
	}
	var errs field.ErrorList
	for i, gate := range now {
		if !before[gate.Name] {
			errs = append(errs, field.Forbidden(p.Index(i).Child("name"), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", gate.Name)))
		}
	}
	return errs
}

// validateGatedPodUpdate lets a pod that waits at a gate narrow where it may
// run (KEP 3838), and undoes that in rest.
func validateGatedPodUpdate(rest, old *corev1.PodSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for key, value := range old.NodeSelector {
		if now, ok := rest.NodeSelector[key]; !ok || now != value {
			errs = append(errs, field.Invalid(p.Child("nodeSelector"), rest.NodeSelector, "only additions to spec.nodeSelector are allowed (no mutations or deletions)"))
			break
		}
	}
	rest.NodeSelector = old.NodeSelector

	before, now := nodeAffinity(old), nodeAffinity(rest)
	if apiequality.Semantic.DeepEqual(before, now) {
		return errs
	}
	errs = append(errs, validateNarrowedAffinity(now, before, p.Child("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"))...)
	switch {
	case rest.Affinity == nil:
		rest.Affinity = &corev1.Affinity{NodeAffinity: before}
	case old.Affinity == nil && rest.Affinity.PodAffinity == nil && rest.Affinity.PodAntiAffinity == nil:
		rest.Affinity = nil
	default:
		rest.Affinity.NodeAffinity = before
	}
	return errs
}

func nodeAffinity(spec *corev1.PodSpec) *corev1.NodeAffinity {
	if spec.Affinity == nil {
		return nil
	}
	return spec.Affinity.NodeAffinity
}

func requiredNodeTerms(a *corev1.NodeAffinity) []corev1.NodeSelectorTerm {
	if a == nil || a.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	return a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
}

func validateNarrowedAffinity(now, old *corev1.NodeAffinity, p *field.Path) field.ErrorList {
	before, after := requiredNodeTerms(old), requiredNodeTerms(now)
	if len(before) > 0 && len(before) != len(after) {
		return field.ErrorList{field.Invalid(p, badvalue.Of(after), "no additions/deletions to non-empty NodeSelectorTerms list are allowed")}
	}
	var errs field.ErrorList
	for i := range before {
		if !onlyAdds(after[i], before[i]) {
			errs = append(errs, field.Invalid(p.Index(i), badvalue.Of(after[i]), "only additions are allowed (no mutations or deletions)"))
		}
	}
	return errs
}

// onlyAdds says whether a term kept its requirements, in order. A term without
// any selects nothing, and additions would widen it.
func onlyAdds(now, old corev1.NodeSelectorTerm) bool {
	if len(old.MatchExpressions) == 0 && len(old.MatchFields) == 0 {
		return len(now.MatchExpressions) == 0 && len(now.MatchFields) == 0
	}
	return startsWith(now.MatchExpressions, old.MatchExpressions) && startsWith(now.MatchFields, old.MatchFields)
}

func startsWith(now, old []corev1.NodeSelectorRequirement) bool {
	return len(now) >= len(old) && apiequality.Semantic.DeepEqual(now[:len(old):len(old)], old[:len(old):len(old)])
}
