// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	resourcehelper "k8s.io/component-helpers/resource"

	"kaji/internal/api/badvalue"
	"kaji/internal/api/rule"
)

// validateResources checks requests and limits; name checks what a resource may
// be called here, and claims are those that may be referred to.
func (c *checker) validateResources(r *corev1.ResourceRequirements, name func(corev1.ResourceName, *field.Path) field.ErrorList, claims sets.Set[string], p *field.Path) field.ErrorList {
	var errs field.ErrorList
	limits, requests := p.Child("limits"), p.Child("requests")
	var compute, hugePages bool
	check := func(resource corev1.ResourceName, q resource.Quantity, p *field.Path) {
		errs = append(errs, name(resource, p)...)
		errs = append(errs, rule.Quantity(resource, q, p)...)
		compute = compute || resource == corev1.ResourceCPU || resource == corev1.ResourceMemory
		hugePages = hugePages || rule.IsHugePages(resource)
	}
	divisible := func(resource corev1.ResourceName, q resource.Quantity, p *field.Path) {
		if rule.IsHugePages(resource) && !c.options.IndivisibleHugePages && !rule.HugePagesDivide(resource, q) {
			errs = append(errs, field.Invalid(p, q.String(), fmt.Sprintf("%s is not positive integer multiple of %s", q.String(), resource)))
		}
	}
	for _, resource := range rule.SortedKeys(r.Limits) {
		q, p := r.Limits[resource], limits.Key(string(resource))
		check(resource, q, p)
		divisible(resource, q, p)
	}
	for _, resource := range rule.SortedKeys(r.Requests) {
		q, p := r.Requests[resource], requests.Key(string(resource))
		check(resource, q, p)
		switch limit, limited := r.Limits[resource]; {
		case limited && !rule.MayOvercommit(resource) && q.Cmp(limit) != 0:
			errs = append(errs, field.Invalid(requests, q.String(), fmt.Sprintf("must be equal to %s limit of %s", resource, limit.String())))
		case limited && q.Cmp(limit) > 0:
			errs = append(errs, field.Invalid(requests, q.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", resource, limit.String())))
		case !limited && !rule.MayOvercommit(resource):
			errs = append(errs, field.Required(limits, "Limit must be set for non overcommitable resources"))
		}
		divisible(resource, q, p)
	}
	if hugePages && !compute {
		errs = append(errs, field.Forbidden(p, "HugePages require cpu or memory"))
	}
	return append(errs, validateClaimNames(r.Claims, claims, p.Child("claims"))...)
}

// ValidateOverhead judges what the pods of a RuntimeClass cost beside their
// containers, and reports it, as the limits of a container at p.
func ValidateOverhead(fixed corev1.ResourceList, p *field.Path) field.ErrorList {
	c := &checker{}
	return c.validateResources(&corev1.ResourceRequirements{Limits: fixed}, rule.ContainerResourceName, nil, p)
}

// validateClaimNames requires each claim a container uses to be one of the
// pod's, and not to be named twice, whole or by request.
func validateClaimNames(used []corev1.ResourceClaim, claims sets.Set[string], p *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for i, claim := range used {
		p := p.Index(i)
		if claim.Name == "" {
			errs = append(errs, field.Required(p, ""))
			continue
		}
		if seen.Has(claim.Name) {
			errs = append(errs, field.Duplicate(p, claim.Name))
		} else {
			key := claim.Name
			if claim.Request != "" {
				errs = append(errs, rule.Label(claim.Request, p.Child("request"))...)
				key += "/" + claim.Request
			}
			if seen.Has(key) {
				errs = append(errs, field.Duplicate(p, key))
			} else if claim.Request == "" {
				for other := range seen {
					if name, _, byRequest := strings.Cut(other, "/"); byRequest && name == claim.Name {
						errs = append(errs, field.Duplicate(p, claim.Name))
					}
				}
			}
			seen.Insert(key)
		}
		if !claims.Has(claim.Name) {
			missing := field.NotFound(p, claim.Name)
			missing.Detail = "must be one of the names in pod.spec.resourceClaims"
			if len(claims) == 0 {
				missing.Detail += " which is empty"
			} else {
				missing.Detail += ": " + strings.Join(sets.List(claims), ", ")
			}
			errs = append(errs, missing)
		}
	}
	return errs
}

// validateResourceClaims checks the claims of the pod itself.
func (c *checker) validateResourceClaims(p *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for i, claim := range c.spec.ResourceClaims {
		p := p.Index(i)
		if c.meta != nil {
			if _, mirror := c.meta.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
				errs = append(errs, field.Forbidden(field.NewPath(""), "static pods do not support resource claims"))
				continue
			}
		}
		switch {
		case claim.Name == "":
			errs = append(errs, field.Required(p.Child("name"), ""))
		case names.Has(claim.Name):
			errs = append(errs, field.Duplicate(p.Child("name"), claim.Name))
		default:
			errs = append(errs, rule.Label(claim.Name, p.Child("name"))...)
			names.Insert(claim.Name)
		}
		if claim.ResourceClaimName != nil && claim.ResourceClaimTemplateName != nil {
			errs = append(errs, field.Invalid(p, badvalue.Of(claim), "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"))
		}
		if claim.ResourceClaimName == nil && claim.ResourceClaimTemplateName == nil {
			errs = append(errs, field.Invalid(p, badvalue.Of(claim), "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"))
		}
		if name := claim.ResourceClaimName; name != nil {
			errs = append(errs, rule.Messages(p.Child("resourceClaimName"), *name, apivalidation.NameIsDNSSubdomain(*name, false))...)
		}
		if name := claim.ResourceClaimTemplateName; name != nil {
			errs = append(errs, rule.Messages(p.Child("resourceClaimTemplateName"), *name, apivalidation.NameIsDNSSubdomain(*name, false))...)
		}
	}
	return errs
}

// validatePodResources checks the resources of the pod as a whole (KEP 2837).
func (c *checker) validatePodResources(p *field.Path) field.ErrorList {
	r := c.spec.Resources
	if r == nil {
		return nil
	}
	if c.spec.OS != nil && c.spec.OS.Name == corev1.Windows {
		return field.ErrorList{field.Forbidden(p, "may not be set for a windows pod")}
	}
	var errs field.ErrorList
	if r.Claims != nil {
		errs = append(errs, field.Forbidden(p.Child("claims"), "claims may not be set for Resources at pod-level"))
	}
	errs = append(errs, c.validateResources(r, podResourceName, c.claims, p)...)

	pod := &corev1.Pod{Spec: *c.spec}
	requests := resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{})
	for _, name := range rule.SortedKeys(requests) {
		sum := requests[name]
		if own, ok := r.Requests[name]; ok && sum.Cmp(own) > 0 {
			errs = append(errs, field.Invalid(p.Child("requests").Key(string(name)), own.String(), "must be greater than or equal to aggregate container requests of "+sum.String()))
		}
	}
	limits := resourcehelper.AggregateContainerLimits(pod, resourcehelper.PodResourcesOptions{})
	for _, name := range rule.SortedKeys(limits) {
		sum := limits[name]
		if own, ok := r.Limits[name]; ok && rule.IsHugePages(name) && sum.Cmp(own) > 0 {
			errs = append(errs, field.Invalid(p.Child("limits").Key(string(name)), own.String(), "must be greater than or equal to aggregate container limits of "+sum.String()))
		}
	}
	for i := range c.spec.Containers {
		limits := c.spec.Containers[i].Resources.Limits
		for _, name := range rule.SortedKeys(limits) {
			limit := limits[name]
			if own, ok := r.Limits[name]; ok && limit.Cmp(own) > 0 {
				errs = append(errs, field.Invalid(p.Child("containers").Index(i).Key(string(name)).Child("limits"), limit.String(), "must be less than or equal to pod limits of "+own.String()))
			}
		}
	}
	return errs
}

func podResourceName(name corev1.ResourceName, p *field.Path) field.ErrorList {
	if errs := rule.ResourceName(name, p); len(errs) > 0 {
		return errs
	}
	if !resourcehelper.IsSupportedPodLevelResource(name) {
		return field.ErrorList{field.NotSupported(p, name, sets.List(resourcehelper.SupportedPodLevelResources()))}
	}
	return nil
}

func (c *checker) validateResizePolicy(policies []corev1.ContainerResizePolicy, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[corev1.ResourceName]()
	for i, policy := range policies {
		if seen.Has(policy.ResourceName) {
			errs = append(errs, field.Duplicate(p.Index(i), policy.ResourceName))
		}
		seen.Insert(policy.ResourceName)
		errs = append(errs, rule.OneOfRequired(policy.ResourceName, p, corev1.ResourceCPU, corev1.ResourceMemory)...)
		errs = append(errs, rule.OneOfRequired(policy.RestartPolicy, p, corev1.NotRequired, corev1.RestartContainer)...)
		if c.spec.RestartPolicy == corev1.RestartPolicyNever && policy.RestartPolicy != corev1.NotRequired {
			errs = append(errs, field.Invalid(p, policy.RestartPolicy, "must be 'NotRequired' when pod `restartPolicy` is 'Never'"))
		}
	}
	return errs
}
