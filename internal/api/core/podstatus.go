// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"kaji/internal/api/badvalue"
	"kaji/internal/api/podspec"
	"kaji/internal/api/rule"
)

func preparePodStatusUpdate(_ context.Context, p, old *corev1.Pod) {
	p.Spec = old.Spec
	podspec.DropDisabledStatus(&p.Status, &old.Status)
	p.Generation = old.Generation
	p.DeletionTimestamp = nil
	p.OwnerReferences = old.OwnerReferences
	if p.Status.QOSClass == "" {
		p.Status.QOSClass = old.Status.QOSClass
	}
	if p.Status.ObservedGeneration == 0 {
		p.Status.ObservedGeneration = old.Status.ObservedGeneration
	}
	// Conditions keep the generation they were observed at when the client
	// does not know the field; several may have one type.
	observed := map[corev1.PodConditionType][]int64{}
	for _, c := range old.Status.Conditions {
		observed[c.Type] = append(observed[c.Type], c.ObservedGeneration)
	}
	for i := range p.Status.Conditions {
		c := &p.Status.Conditions[i]
		if before := observed[c.Type]; len(before) > 0 {
			observed[c.Type] = before[1:]
			if c.ObservedGeneration == 0 {
				c.ObservedGeneration = before[0]
			}
		}
	}
	if old.Status.VolumeHealth == nil {
		p.Status.VolumeHealth = nil // behind a gate that is off
	}
}

func validatePodStatusUpdate(p, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("status")
	errs := validatePodAnnotationUpdates(p, old)
	errs = append(errs, validatePodConditions(p.Status.Conditions, path.Child("conditions"))...)
	if nominated := p.Status.NominatedNodeName; nominated != "" && nominated != old.Status.NominatedNodeName {
		errs = append(errs, rule.Messages(path.Child("nominatedNodeName"), nominated, apivalidation.NameIsDNSSubdomain(nominated, false))...)
		if old.Spec.NodeName != "" {
			errs = append(errs, field.Forbidden(path.Child("nominatedNodeName"), "may not be set on pods that are already bound to a node"))
		}
	}
	if p.Status.ObservedGeneration < 0 {
		errs = append(errs, field.Invalid(path.Child("observedGeneration"), p.Status.ObservedGeneration, "must be a non-negative integer"))
	}
	errs = append(errs, apivalidation.ValidateImmutableField(p.Status.QOSClass, old.Status.QOSClass, path.Child("qosClass"))...)
	for _, list := range []struct {
		name     string
		now, old []corev1.ContainerStatus
		restarts func(name string, exitCode int32) bool
	}{
		{"containerStatuses", p.Status.ContainerStatuses, old.Status.ContainerStatuses, mayRestart(&old.Spec, old.Spec.Containers)},
		{"initContainerStatuses", p.Status.InitContainerStatuses, old.Status.InitContainerStatuses, mayRestart(&old.Spec, old.Spec.InitContainers)},
		{"ephemeralContainerStatuses", p.Status.EphemeralContainerStatuses, old.Status.EphemeralContainerStatuses, func(string, int32) bool { return false }},
	} {
		errs = append(errs, validateStateTransitions(list.now, list.old, list.restarts, path.Child(list.name))...)
	}
	errs = append(errs, validateClaimStatuses(p, path)...)
	errs = append(errs, validatePodIPs(p, old, path.Child("podIPs"))...)
	errs = append(errs, validateHostIPs(p, old, path.Child("hostIPs"))...)
	for _, list := range []struct {
		name       string
		statuses   []corev1.ContainerStatus
		containers []corev1.Container
	}{
		{"containerStatuses", p.Status.ContainerStatuses, p.Spec.Containers},
		{"initContainerStatuses", p.Status.InitContainerStatuses, p.Spec.InitContainers},
		{"ephemeralContainerStatuses", p.Status.EphemeralContainerStatuses, nil},
	} {
		errs = append(errs, validateContainerUsers(list.statuses, p.Spec.OS, path.Child(list.name))...)
		errs = append(errs, validateResourceHealth(list.statuses, list.containers, path.Child(list.name))...)
	}
	return errs
}

func validatePodConditions(conditions []corev1.PodCondition, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, c := range conditions {
		if c.ObservedGeneration < 0 {
			errs = append(errs, field.Invalid(p.Index(i).Child("observedGeneration"), c.ObservedGeneration, "must be a non-negative integer"))
		}
		switch c.Type {
		case corev1.PodScheduled, corev1.PodReady, corev1.PodInitialized:
		default:
			errs = append(errs, rule.QualifiedName(string(c.Type), p.Index(i).Child("Type"))...)
		}
	}
	return errs
}

// mayRestart says of one of the containers whether it is started again after it
// ended (KEPs 753 and 5307).
func mayRestart(spec *corev1.PodSpec, containers []corev1.Container) func(name string, exitCode int32) bool {
	all := false
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			for _, r := range list[i].RestartPolicyRules {
				all = all || r.Action == corev1.ContainerRestartRuleActionRestartAllContainers
			}
		}
	}
	return func(name string, exitCode int32) bool {
		if all {
			return true
		}
		for i := range containers {
			if containers[i].Name == name {
				return podspec.ShouldRestart(spec, &containers[i], exitCode)
			}
		}
		return false
	}
}

func validateStateTransitions(now, old []corev1.ContainerStatus, restarts func(string, int32) bool, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, before := range old {
		if before.State.Terminated == nil {
			continue
		}
		for _, s := range now {
			if s.Name == before.Name && s.State.Terminated == nil && !restarts(s.Name, before.State.Terminated.ExitCode) {
				errs = append(errs, field.Forbidden(p.Index(i).Child("state"), "may not be transitioned to non-terminated state"))
			}
		}
	}
	return errs
}

func validateClaimStatuses(p *corev1.Pod, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	known := sets.New[string]()
	for _, claim := range p.Spec.ResourceClaims {
		known.Insert(claim.Name)
	}
	seen := sets.New[string]()
	for i, s := range p.Status.ResourceClaimStatuses {
		path := path.Child("resourceClaimStatuses").Index(i)
		if !known.Has(s.Name) {
			errs = append(errs, field.Invalid(path.Child("name"), s.Name, "must match the name of an entry in `spec.resourceClaims`"))
		}
		if seen.Has(s.Name) {
			errs = append(errs, field.Duplicate(path.Child("name"), s.Name))
		}
		seen.Insert(s.Name)
		if name := s.ResourceClaimName; name != nil {
			errs = append(errs, rule.Messages(path.Child("resourceClaimName"), *name, apivalidation.NameIsDNSSubdomain(*name, false))...)
		}
	}
	return append(errs, validateExtendedClaimStatus(p, path.Child("extendedResourceClaimStatus"))...)
}

// validateExtendedClaimStatus checks the claim made for extended resources (KEP 5004).
func validateExtendedClaimStatus(p *corev1.Pod, path *field.Path) field.ErrorList {
	s := p.Status.ExtendedResourceClaimStatus
	if s == nil {
		return nil
	}
	containers := map[string]*corev1.Container{}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			containers[list[i].Name] = &list[i]
		}
	}
	var errs field.ErrorList
	mappings := path.Child("requestMappings")
	if len(s.RequestMappings) == 0 {
		errs = append(errs, field.Required(mappings, "at least one request mapping is required"))
	}
	seen := sets.New[corev1.ContainerExtendedResourceRequest]()
	for i, m := range s.RequestMappings {
		p := mappings.Index(i)
		if c, ok := containers[m.ContainerName]; !ok {
			errs = append(errs, field.Invalid(p.Child("containerName"), m.ContainerName, "must match the name of an entry in spec.initContainers.name or spec.containers.name"))
		} else if _, ok := c.Resources.Requests[corev1.ResourceName(m.ResourceName)]; !ok {
			errs = append(errs, field.Invalid(p.Child("resourceName"), m.ResourceName,
				"must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests"))
		}
		errs = append(errs, rule.Label(m.RequestName, path.Child("requestName"))...)
		if seen.Has(m) {
			errs = append(errs, field.Duplicate(p.Child("containerName"), m.ContainerName),
				field.Duplicate(p.Child("resourceName"), m.ResourceName), field.Duplicate(p.Child("requestName"), m.RequestName))
		}
		seen.Insert(m)
	}
	if s.ResourceClaimName == "" {
		return append(errs, field.Required(path.Child("resourceClaimName"), ""))
	}
	return append(errs, rule.Messages(path.Child("resourceClaimName"), s.ResourceClaimName, apivalidation.NameIsDNSSubdomain(s.ResourceClaimName, false))...)
}

func validatePodIPs(p, old *corev1.Pod, path *field.Path) field.ErrorList {
	var ips, stored []string
	for _, ip := range p.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	for _, ip := range old.Status.PodIPs {
		stored = append(stored, ip.IP)
	}
	return validateIPPair(ips, stored, p.Status.PodIPs, path)
}

func validateHostIPs(p, old *corev1.Pod, path *field.Path) field.ErrorList {
	if len(p.Status.HostIPs) == 0 {
		return nil
	}
	var errs field.ErrorList
	if first := p.Status.HostIPs[0].IP; p.Status.HostIP != first {
		errs = append(errs, field.Invalid(path.Index(0).Child("ip"), first, "must be equal to `hostIP`"))
	}
	var ips, stored []string
	for _, ip := range p.Status.HostIPs {
		ips = append(ips, ip.IP)
	}
	for _, ip := range old.Status.HostIPs {
		stored = append(stored, ip.IP)
	}
	return append(errs, validateIPPair(ips, stored, p.Status.HostIPs, path)...)
}

// validateIPPair requires addresses, at most one of each family; shown is the
// value in the error.
func validateIPPair(ips, stored []string, shown any, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, ip := range ips {
		errs = append(errs, podspec.LegacyIP(p.Index(i), ip, stored...)...)
	}
	if len(ips) < 2 {
		return errs
	}
	dual, err := netutils.IsDualStackIPStrings(ips)
	if err != nil {
		errs = append(errs, field.InternalError(p, fmt.Errorf("failed to check for dual stack with error:%w", err)))
	}
	if !dual || len(ips) > 2 {
		errs = append(errs, field.Invalid(p, badvalue.Of(shown), "may specify no more than one IP for each IP family"))
	}
	return errs
}

func validateContainerUsers(statuses []corev1.ContainerStatus, os *corev1.PodOS, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, s := range statuses {
		if s.User == nil || s.User.Linux == nil {
			continue
		}
		p := p.Index(i).Child("linux")
		if os != nil && os.Name == corev1.Windows {
			errs = append(errs, field.Forbidden(p, "cannot be set for a windows pod"))
			continue
		}
		user := s.User.Linux
		errs = append(errs, rule.Messages(p.Child("uid"), user.UID, validation.IsValidUserID(user.UID))...)
		errs = append(errs, rule.Messages(p.Child("gid"), user.GID, validation.IsValidGroupID(user.GID))...)
		for j, gid := range user.SupplementalGroups {
			errs = append(errs, rule.Messages(p.Child("supplementalGroups").Index(j), gid, validation.IsValidGroupID(gid))...)
		}
	}
	return errs
}

// validateResourceHealth checks the health of devices (KEP 4680); containers is
// nil for those that have none.
func validateResourceHealth(statuses []corev1.ContainerStatus, containers []corev1.Container, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, s := range statuses {
		p := p.Index(i).Child("allocatedResourcesStatus")
		if containers == nil && len(s.AllocatedResourcesStatus) > 0 {
			errs = append(errs, field.Forbidden(p, "must not be specified in container status"))
			continue
		}
		for j, allocated := range s.AllocatedResourcesStatus {
			p := p.Index(j)
			for k := range containers {
				if containers[k].Name != s.Name {
					continue
				}
				if err := knownResource(&containers[k], allocated.Name); err != nil {
					errs = append(errs, field.Invalid(p.Child("name"), allocated.Name, err.Error()))
				}
				break
			}
			seen := sets.New[corev1.ResourceID]()
			for k, r := range allocated.Resources {
				p := p.Child("resources").Index(k)
				if r.Message != nil && *r.Message == "" {
					errs = append(errs, field.Required(p.Child("message"), "must be non-empty if specified"))
				}
				errs = append(errs, rule.OneOf(r.Health, p.Child("health"), corev1.ResourceHealthStatusHealthy, corev1.ResourceHealthStatusUnhealthy, corev1.ResourceHealthStatusUnknown)...)
				if seen.Has(r.ResourceID) {
					errs = append(errs, field.Duplicate(p.Child("resourceID"), r.ResourceID))
				}
				seen.Insert(r.ResourceID)
			}
		}
	}
	return errs
}

var (
	errUnknownClaim    = errors.New("must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty")
	errUnknownResource = errors.New("must match one of the container's resource requests")
)

func knownResource(c *corev1.Container, name corev1.ResourceName) error {
	if len(name) > 6 && name[:6] == "claim:" {
		for _, claim := range c.Resources.Claims {
			full := "claim:" + claim.Name
			if claim.Request != "" {
				full += "/" + claim.Request
			}
			if full == string(name) {
				return nil
			}
		}
		return errUnknownClaim
	}
	if _, ok := c.Resources.Requests[name]; !ok {
		return errUnknownResource
	}
	return nil
}
