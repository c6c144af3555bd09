// SPDX-License-Identifier: Apache-2.0

package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"

	"kaji/internal/api/badvalue"
	"kaji/internal/api/podspec"
	"kaji/internal/api/rule"
)

const (
	unchangeable       = "may not change once set"
	onlyLoadBalancers  = "may only be used when `type` is 'LoadBalancer'"
	notExternalName    = "may not be set for ExternalName services"
	maxAffinitySeconds = 86400
)

func validateNewService(s *corev1.Service) field.ErrorList { return validateService(s, nil) }

// validateService judges a Service; old is nil on create, and what it stored
// is not held to newer rules.
func validateService(s, old *corev1.Service) field.ErrorList {
	var before corev1.Service
	if old != nil {
		before = *old
	}
	spec, p := &s.Spec, field.NewPath("spec")
	errs := validateTopologyAnnotations(s)
	if len(spec.Ports) == 0 && !isHeadless(spec) && spec.Type != corev1.ServiceTypeExternalName {
		errs = append(errs, field.Required(p.Child("ports"), ""))
	}
	errs = append(errs, validateServiceType(spec, p)...)
	errs = append(errs, validateServicePorts(spec, p.Child("ports"))...)
	if spec.Selector != nil {
		errs = append(errs, metav1validation.ValidateLabels(spec.Selector, p.Child("selector"))...)
	}
	errs = append(errs, validateSessionAffinity(spec, p)...)
	errs = append(errs, validateClusterIPs(spec, before.Spec.ClusterIPs, p)...)
	for i, ip := range spec.ExternalIPs {
		p := p.Child("externalIPs").Index(i)
		if bad := podspec.LegacyIP(p, ip, before.Spec.ExternalIPs...); len(bad) > 0 {
			errs = append(errs, bad...)
		} else {
			errs = append(errs, rule.NonSpecialIP(ip, p)...)
		}
	}
	errs = append(errs, validateSourceRanges(s, old, p)...)
	errs = append(errs, validateLoadBalancerFields(spec, p)...)
	return append(errs, validateTrafficPolicies(spec, p)...)
}

func validateTopologyAnnotations(s *corev1.Service) field.ErrorList {
	hints, hasHints := s.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	mode, hasMode := s.Annotations[corev1.AnnotationTopologyMode]
	if !hasHints || !hasMode || hints == mode {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata", "annotations").Key(corev1.AnnotationTopologyMode), mode,
		fmt.Sprintf("must match annotations[%s] when both are specified", corev1.DeprecatedAnnotationTopologyAwareHints))}
}

func validateServiceType(spec *corev1.ServiceSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch t := spec.Type; t {
	case "":
		return field.ErrorList{field.Required(p.Child("type"), "")}
	case corev1.ServiceTypeClusterIP:
		for i := range spec.Ports {
			if spec.Ports[i].NodePort != 0 {
				errs = append(errs, field.Forbidden(p.Child("ports").Index(i).Child("nodePort"), "may not be used when `type` is 'ClusterIP'"))
			}
		}
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		if isHeadless(spec) {
			errs = append(errs, field.Invalid(p.Child("clusterIPs").Index(0), spec.ClusterIPs[0], fmt.Sprintf("may not be set to 'None' for %s services", t)))
		}
	case corev1.ServiceTypeExternalName:
		if len(spec.ClusterIPs) > 0 {
			errs = append(errs, field.Forbidden(p.Child("clusterIPs"), notExternalName))
		}
		if len(spec.IPFamilies) > 0 {
			errs = append(errs, field.Forbidden(p.Child("ipFamilies"), notExternalName))
		}
		if spec.IPFamilyPolicy != nil {
			errs = append(errs, field.Forbidden(p.Child("ipFamilyPolicy"), notExternalName))
		}
		if cname := strings.TrimSuffix(spec.ExternalName, "."); cname != "" {
			errs = append(errs, rule.Subdomain(cname, p.Child("externalName"))...)
		} else {
			errs = append(errs, field.Required(p.Child("externalName"), ""))
		}
	default:
		return rule.OneOf(t, p.Child("type"), corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName)
	}
	return errs
}

func validateServicePorts(spec *corev1.ServiceSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	names, seen, nodePorts := sets.New[string](), sets.New[corev1.ServicePort](), sets.New[corev1.ServicePort]()
	for i := range spec.Ports {
		port, p := &spec.Ports[i], p.Index(i)
		if port.Name != "" {
			errs = append(errs, rule.Label(port.Name, p.Child("name"))...)
			if names.Has(port.Name) {
				errs = append(errs, field.Duplicate(p.Child("name"), port.Name))
			}
			names.Insert(port.Name)
		} else if len(spec.Ports) > 1 {
			errs = append(errs, field.Required(p.Child("name"), ""))
		}
		errs = append(errs, rule.Messages(p.Child("port"), port.Port, validation.IsValidPortNum(int(port.Port)))...)
		errs = append(errs, podspec.Protocol(port.Protocol, p.Child("protocol"))...)
		errs = append(errs, rule.Port(port.TargetPort, p.Child("targetPort"))...)
		if port.AppProtocol != nil {
			errs = append(errs, rule.QualifiedName(*port.AppProtocol, p.Child("appProtocol"))...)
		}
		if key := (corev1.ServicePort{Protocol: port.Protocol, NodePort: port.NodePort}); port.NodePort != 0 {
			if nodePorts.Has(key) {
				errs = append(errs, field.Duplicate(p.Child("nodePort"), port.NodePort))
			}
			nodePorts.Insert(key)
		}
		key := corev1.ServicePort{Protocol: port.Protocol, Port: port.Port}
		if seen.Has(key) {
			errs = append(errs, field.Duplicate(p, badvalue.Of(key)))
		}
		seen.Insert(key)
	}
	return errs
}

func validateSessionAffinity(spec *corev1.ServiceSpec, p *field.Path) field.ErrorList {
	affinity, config := p.Child("sessionAffinity"), p.Child("sessionAffinityConfig")
	switch spec.SessionAffinity {
	case "":
		return field.ErrorList{field.Required(affinity, "")}
	case corev1.ServiceAffinityNone:
		if spec.SessionAffinityConfig != nil {
			return field.ErrorList{field.Forbidden(config, "must not be set when session affinity is None")}
		}
		return nil
	case corev1.ServiceAffinityClientIP:
		c := spec.SessionAffinityConfig
		switch {
		case c == nil:
			return field.ErrorList{field.Required(config, "when session affinity type is ClientIP")}
		case c.ClientIP == nil:
			return field.ErrorList{field.Required(config.Child("clientIP"), "when session affinity type is ClientIP")}
		case c.ClientIP.TimeoutSeconds == nil:
			return field.ErrorList{field.Required(config.Child("clientIP", "timeoutSeconds"), "when session affinity type is ClientIP")}
		case *c.ClientIP.TimeoutSeconds <= 0 || *c.ClientIP.TimeoutSeconds > maxAffinitySeconds:
			return field.ErrorList{field.Invalid(config.Child("clientIP", "timeoutSeconds"), *c.ClientIP.TimeoutSeconds,
				fmt.Sprintf("must be greater than 0 and less than %d", maxAffinitySeconds))}
		}
		return nil
	}
	return rule.OneOf(spec.SessionAffinity, affinity, corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
}

// ValidateClusterIPs judges the addresses and families that a Service asks for
// before it is given any; old is the Service before an update, or nil.
func ValidateClusterIPs(s, old *corev1.Service) field.ErrorList {
	var stored []string
	if old != nil {
		stored = old.Spec.ClusterIPs
	}
	return validateClusterIPs(&s.Spec, stored, field.NewPath("spec"))
}

// validateClusterIPs judges the addresses and families by themselves; whether
// the cluster has them is for the allocator to say.
func validateClusterIPs(spec *corev1.ServiceSpec, stored []string, p *field.Path) field.ErrorList {
	if spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	var errs field.ErrorList
	ips, families := p.Child("clusterIPs"), p.Child("ipFamilies")
	switch {
	case spec.ClusterIP == "" && len(spec.ClusterIPs) > 0:
		errs = append(errs, field.Invalid(ips, spec.ClusterIPs, "must be empty when `clusterIP` is not specified"))
	case spec.ClusterIP != "" && len(spec.ClusterIPs) == 0:
		errs = append(errs, field.Required(ips, ""))
	case spec.ClusterIP != "" && spec.ClusterIPs[0] != spec.ClusterIP:
		errs = append(errs, field.Invalid(ips, spec.ClusterIPs, "first value must match `clusterIP`"))
	}
	seen := sets.New[corev1.IPFamily]()
	for i, family := range spec.IPFamilies {
		errs = append(errs, rule.OneOf(family, families.Index(i), corev1.IPv4Protocol, corev1.IPv6Protocol)...)
		if seen.Has(family) {
			errs = append(errs, field.Duplicate(families.Index(i), family))
		}
		seen.Insert(family)
	}
	if policy := spec.IPFamilyPolicy; policy != nil {
		errs = append(errs, rule.OneOf(*policy, p.Child("ipFamilyPolicy"),
			corev1.IPFamilyPolicySingleStack, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack)...)
	}
	var bad field.ErrorList
	for i, ip := range spec.ClusterIPs {
		if i > 0 || ip != corev1.ClusterIPNone {
			bad = append(bad, podspec.LegacyIP(ips.Index(i), ip, stored...)...)
		} else if len(spec.ClusterIPs) > 1 {
			bad = append(bad, field.Invalid(ips, spec.ClusterIPs, "'None' must be the first and only value"))
		}
	}
	errs = append(errs, bad...)
	if len(spec.ClusterIPs) > 2 {
		errs = append(errs, field.Invalid(ips, spec.ClusterIPs, "may only hold up to 2 values"))
	}
	if len(bad) > 0 {
		return errs
	}
	if len(spec.ClusterIPs) > 1 {
		if dual, err := netutils.IsDualStackIPStrings(spec.ClusterIPs); err != nil {
			errs = append(errs, field.InternalError(ips, fmt.Errorf("failed to check for dual stack with error:%w", err)))
		} else if !dual {
			errs = append(errs, field.Invalid(ips, spec.ClusterIPs, "may specify no more than one IP for each IP family"))
		}
	}
	if isHeadless(spec) {
		return errs
	}
	for i, ip := range spec.ClusterIPs {
		if i >= len(spec.IPFamilies) {
			break
		}
		want, isV6 := spec.IPFamilies[i], netutils.IsIPv6String(ip)
		if want == corev1.IPv4Protocol && isV6 || want == corev1.IPv6Protocol && !isV6 {
			errs = append(errs, field.Invalid(ips.Index(i), ip, fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%d]`", want, i)))
		}
	}
	return errs
}

func validateSourceRanges(s, old *corev1.Service, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	balanced := s.Spec.Type == corev1.ServiceTypeLoadBalancer
	if len(s.Spec.LoadBalancerSourceRanges) > 0 {
		p := p.Child("LoadBalancerSourceRanges")
		if !balanced {
			errs = append(errs, field.Forbidden(p, onlyLoadBalancers))
		}
		var stored []string
		if old != nil {
			for _, cidr := range old.Spec.LoadBalancerSourceRanges {
				stored = append(stored, strings.TrimSpace(cidr))
			}
		}
		for i, cidr := range s.Spec.LoadBalancerSourceRanges {
			errs = append(errs, legacyCIDR(p.Index(i), strings.TrimSpace(cidr), stored...)...)
		}
		return errs
	}
	list, ok := s.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]
	if !ok {
		return nil
	}
	p = field.NewPath("metadata", "annotations").Key(corev1.AnnotationLoadBalancerSourceRangesKey)
	if !balanced {
		errs = append(errs, field.Forbidden(p, onlyLoadBalancers))
	}
	if old != nil && old.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey] == list || strings.TrimSpace(list) == "" {
		return errs
	}
	for cidr := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		errs = append(errs, legacyCIDR(p, strings.TrimSpace(cidr))...)
	}
	return errs
}

// legacyCIDR checks a range in a field that accepts leading zeros and host
// bits, and the ranges that were already stored.
func legacyCIDR(p *field.Path, cidr string, stored ...string) field.ErrorList {
	return validation.IsValidCIDRForLegacyField(p, cidr, false, stored)
}

func validateLoadBalancerFields(spec *corev1.ServiceSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if spec.Type == corev1.ServiceTypeLoadBalancer {
		if spec.AllocateLoadBalancerNodePorts == nil {
			errs = append(errs, field.Required(field.NewPath("allocateLoadBalancerNodePorts"), ""))
		}
		if spec.LoadBalancerClass != nil {
			errs = append(errs, rule.QualifiedName(*spec.LoadBalancerClass, p.Child("loadBalancerClass"))...)
		}
		return errs
	}
	if spec.AllocateLoadBalancerNodePorts != nil {
		errs = append(errs, field.Forbidden(p.Child("allocateLoadBalancerNodePorts"), onlyLoadBalancers))
	}
	if spec.LoadBalancerClass != nil {
		errs = append(errs, field.Forbidden(p.Child("loadBalancerClass"), onlyLoadBalancers))
	}
	return errs
}

func validateTrafficPolicies(spec *corev1.ServiceSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	external, check, internal := p.Child("externalTrafficPolicy"), p.Child("healthCheckNodePort"), p.Child("internalTrafficPolicy")
	switch policy := spec.ExternalTrafficPolicy; {
	case externallyAccessible(spec) && policy == "":
		errs = append(errs, field.Required(external, ""))
	case externallyAccessible(spec):
		errs = append(errs, rule.OneOf(policy, external, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	case policy != "":
		errs = append(errs, field.Invalid(external, policy, "may only be set for externally-accessible services"))
	}
	switch port := spec.HealthCheckNodePort; {
	case needsHealthCheck(spec) && port == 0:
		errs = append(errs, field.Required(check, ""))
	case needsHealthCheck(spec):
		errs = append(errs, rule.Messages(check, port, validation.IsValidPortNum(int(port)))...)
	case port != 0:
		errs = append(errs, field.Invalid(check, port, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"))
	}
	if spec.InternalTrafficPolicy != nil {
		errs = append(errs, rule.OneOf(*spec.InternalTrafficPolicy, internal, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)...)
	} else if hasNodeTraffic(spec.Type) {
		errs = append(errs, field.Required(internal, ""))
	}
	if spec.TrafficDistribution != nil {
		known := []string{corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode}
		if d := *spec.TrafficDistribution; !sets.New(known...).Has(d) {
			errs = append(errs, field.NotSupported(p.Child("trafficDistribution"), d, known))
		}
	}
	return errs
}

func validateServiceUpdate(s, old *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	p := field.NewPath("spec")
	spec, before := &s.Spec, &old.Spec
	if spec.Type != corev1.ServiceTypeExternalName && before.Type != corev1.ServiceTypeExternalName {
		errs = append(errs, validateClusterIPChange(spec, before, p)...)
		if !isHeadless(spec) && !isHeadless(before) {
			errs = append(errs, validateFamilyChange(spec, before, p)...)
		}
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer && before.Type == corev1.ServiceTypeLoadBalancer && !ptr.Equal(spec.LoadBalancerClass, before.LoadBalancerClass) {
		errs = append(errs, field.Invalid(p.Child("loadBalancerClass"), spec.LoadBalancerClass, unchangeable))
	}
	if needsHealthCheck(spec) && needsHealthCheck(before) && spec.HealthCheckNodePort != before.HealthCheckNodePort {
		errs = append(errs, field.Forbidden(p.Child("healthCheckNodePort"), "field is immutable"))
	}
	return append(errs, validateService(s, old)...)
}

// validateClusterIPChange lets the second address come and go, and the first
// stay as it is.
func validateClusterIPChange(spec, old *corev1.ServiceSpec, p *field.Path) field.ErrorList {
	if isHeadless(spec) && isHeadless(old) {
		return nil
	}
	var errs field.ErrorList
	now, was, ips := spec.ClusterIPs, old.ClusterIPs, p.Child("clusterIPs")
	if len(now) == len(was) {
		for i := range was {
			if now[i] != was[i] {
				errs = append(errs, field.Invalid(ips.Index(i), now, unchangeable))
			}
		}
		return errs
	}
	if len(now) == 0 {
		errs = append(errs, field.Invalid(ips.Index(0), now, "primary clusterIP can not be unset"))
	} else if len(was) > 0 && now[0] != was[0] {
		errs = append(errs, field.Invalid(ips.Index(0), now, unchangeable))
	}
	if len(now) < len(was) && len(now) == 1 && !isSingleStack(spec) {
		errs = append(errs, field.Invalid(p.Child("ipFamilyPolicy"), spec.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary clusterIP"))
	}
	return errs
}

func isSingleStack(spec *corev1.ServiceSpec) bool {
	return spec.IPFamilyPolicy != nil && *spec.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack
}

func validateFamilyChange(spec, old *corev1.ServiceSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	now, was, families := spec.IPFamilies, old.IPFamilies, p.Child("ipFamilies").Index(0)
	if len(now) == len(was) {
		for i := range was {
			if now[i] != was[i] {
				errs = append(errs, field.Invalid(families, now, unchangeable))
			}
		}
		return errs
	}
	if len(now) < len(was) && len(spec.ClusterIPs) == 0 {
		errs = append(errs, field.Invalid(families, now, "primary ipFamily can not be unset"))
	}
	if len(now) > 0 && len(was) > 0 && now[0] != was[0] {
		errs = append(errs, field.Invalid(families, spec.ClusterIPs, unchangeable))
	}
	if len(now) < len(was) && len(now) == 1 && !isSingleStack(spec) {
		errs = append(errs, field.Invalid(p.Child("ipFamilyPolicy"), spec.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary ipFamily"))
	}
	return errs
}

func validateServiceStatus(s, old *corev1.Service) field.ErrorList {
	p := field.NewPath("status", "loadBalancer", "ingress")
	ingresses := s.Status.LoadBalancer.Ingress
	if len(ingresses) > 0 && s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return field.ErrorList{field.Forbidden(p, "may only be used when `spec.type` is 'LoadBalancer'")}
	}
	var stored []string
	for _, ingress := range old.Status.LoadBalancer.Ingress {
		stored = append(stored, ingress.IP)
	}
	var errs field.ErrorList
	for i := range ingresses {
		ingress, p := &ingresses[i], p.Index(i)
		if ingress.IP != "" {
			errs = append(errs, podspec.LegacyIP(p.Child("ip"), ingress.IP, stored...)...)
		}
		switch mode := p.Child("ipMode"); {
		case ingress.IP != "" && ingress.IPMode == nil:
			errs = append(errs, field.Required(mode, "must be specified when `ip` is set"))
		case ingress.IP == "" && ingress.IPMode != nil:
			errs = append(errs, field.Forbidden(mode, "may not be specified when `ip` is not set"))
		case ingress.IPMode != nil:
			errs = append(errs, rule.OneOf(*ingress.IPMode, mode, corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP)...)
		}
		if ingress.Hostname != "" {
			errs = append(errs, rule.Subdomain(ingress.Hostname, p.Child("hostname"))...)
			if netutils.ParseIPSloppy(ingress.Hostname) != nil {
				errs = append(errs, field.Invalid(p.Child("hostname"), ingress.Hostname, "must be a DNS name, not an IP address"))
			}
		}
	}
	return errs
}
