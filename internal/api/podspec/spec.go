// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/rule"
)

// checker checks one pod spec; what all its parts need to know stands here.
type checker struct {
	spec    *corev1.PodSpec
	meta    *metav1.ObjectMeta // of a pod, nil in a template
	options Options
	claims  sets.Set[string]
	volumes map[string]*corev1.Volume
}

// Validate checks a pod spec at p. meta is the metadata of the pod, nil where
// the spec stands in a template.
func Validate(spec *corev1.PodSpec, meta *metav1.ObjectMeta, p *field.Path, options Options) field.ErrorList {
	c := &checker{spec: spec, meta: meta, options: options, claims: sets.New[string](), volumes: map[string]*corev1.Volume{}}
	for _, claim := range spec.ResourceClaims {
		if claim.Name != "" {
			c.claims.Insert(claim.Name)
		}
	}
	var errs field.ErrorList
	if spec.TerminationGracePeriodSeconds == nil {
		errs = append(errs, field.Required(p.Child("terminationGracePeriodSeconds"), ""))
	}
	errs = append(errs, c.validateVolumes(p.Child("volumes"))...)
	errs = append(errs, c.validateResourceClaims(p.Child("resourceClaims"))...)
	errs = append(errs, c.validateContainers(p.Child("containers"))...)
	errs = append(errs, c.validateInitContainers(p.Child("initContainers"))...)
	errs = append(errs, c.validateEphemeralContainers(p.Child("ephemeralContainers"))...)
	errs = append(errs, c.validatePodResources(p.Child("resources"))...)
	errs = append(errs, c.validateHostPorts(p.Child("containers"))...)
	errs = append(errs, rule.OneOfRequired(spec.RestartPolicy, p.Child("restartPolicy"),
		corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)...)
	errs = append(errs, rule.OneOfRequired(spec.DNSPolicy, p.Child("dnsPolicy"),
		corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)...)
	errs = append(errs, metav1validation.ValidateLabels(spec.NodeSelector, p.Child("nodeSelector"))...)
	errs = append(errs, c.validateSecurityContext(p.Child("securityContext"))...)
	errs = append(errs, validateAffinity(spec.Affinity, options, p.Child("affinity"))...)
	errs = append(errs, validateDNSConfig(spec, p.Child("dnsConfig"))...)
	for i, gate := range spec.ReadinessGates {
		errs = append(errs, rule.QualifiedName(string(gate.ConditionType), p.Child("readinessGates").Index(i).Child("conditionType"))...)
	}
	errs = append(errs, validateSchedulingGates(spec.SchedulingGates, p.Child("schedulingGates"))...)
	errs = append(errs, validateTopologySpread(spec.TopologySpreadConstraints, options, p.Child("topologySpreadConstraints"))...)
	errs = append(errs, validateHostProcess(spec, p)...)
	errs = append(errs, c.validateHostUsers(p)...)
	errs = append(errs, validateNames(spec, p)...)
	if d := spec.ActiveDeadlineSeconds; d != nil && (*d < 1 || *d > math.MaxInt32) {
		errs = append(errs, field.Invalid(p.Child("activeDeadlineSeconds"), *d, validation.InclusiveRangeError(1, math.MaxInt32)))
	}
	errs = append(errs, ValidateTolerations(spec.Tolerations, p.Child("tolerations"))...)
	errs = append(errs, validateHostAliases(spec.HostAliases, p.Child("hostAliases"))...)
	if spec.PreemptionPolicy != nil {
		errs = append(errs, rule.OneOfRequired(*spec.PreemptionPolicy, p.Child("preemptionPolicy"), corev1.PreemptLowerPriority, corev1.PreemptNever)...)
	}
	if spec.Overhead != nil {
		errs = append(errs, c.validateResources(&corev1.ResourceRequirements{Limits: spec.Overhead}, rule.ContainerResourceName, nil, p.Child("overhead"))...)
	}
	errs = append(errs, validateOS(spec, p)...)
	return append(errs, c.validateFileKeyVolumes(p)...)
}

// validateNames checks the fields that name something else.
func validateNames(spec *corev1.PodSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	subdomain := func(value, name string) {
		if value != "" {
			errs = append(errs, rule.Messages(p.Child(name), value, apivalidation.NameIsDNSSubdomain(value, false))...)
		}
	}
	errs = append(errs, validateHostnameOverride(spec, p.Child("hostnameOverride"))...)
	if g := spec.SchedulingGroup; g != nil {
		errs = append(errs, validateSchedulingGroup(g, p.Child("schedulingGroup", "podGroupName"))...)
	}
	subdomain(spec.ServiceAccountName, "serviceAccountName")
	subdomain(spec.NodeName, "nodeName")
	if spec.Hostname != "" {
		errs = append(errs, rule.Label(spec.Hostname, p.Child("hostname"))...)
	}
	if spec.Subdomain != "" {
		errs = append(errs, rule.Label(spec.Subdomain, p.Child("subdomain"))...)
	}
	subdomain(spec.PriorityClassName, "priorityClassName")
	if spec.RuntimeClassName != nil {
		errs = append(errs, rule.Messages(p.Child("runtimeClassName"), *spec.RuntimeClassName, apivalidation.NameIsDNSSubdomain(*spec.RuntimeClassName, false))...)
	}
	return errs
}

func validateSchedulingGroup(g *corev1.PodSchedulingGroup, p *field.Path) field.ErrorList {
	if g.PodGroupName == nil {
		return field.ErrorList{field.Invalid(p, g.PodGroupName, "must specify one of: `podGroupName`")}
	}
	return rule.Subdomain(*g.PodGroupName, p)
}

func validateHostnameOverride(spec *corev1.PodSpec, p *field.Path) field.ErrorList {
	if spec.HostnameOverride == nil {
		return nil
	}
	var errs field.ErrorList
	if isTrue(spec.SetHostnameAsFQDN) {
		errs = append(errs, field.Forbidden(p, "may not be specified when setHostnameAsFQDN is true"))
	}
	if spec.HostNetwork {
		errs = append(errs, field.Forbidden(p, "may not be specified when hostNetwork is true"))
	}
	if len(*spec.HostnameOverride) > 64 {
		errs = append(errs, field.TooLong(p, "", 64))
	}
	return append(errs, rule.Subdomain(*spec.HostnameOverride, p)...)
}

// The limits of the resolver in libc.
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

func validateDNSConfig(spec *corev1.PodSpec, p *field.Path) field.ErrorList {
	config := spec.DNSConfig
	nameservers, searches := p.Child("nameservers"), p.Child("searches")
	if spec.DNSPolicy == corev1.DNSNone {
		if config == nil {
			return field.ErrorList{field.Required(p, "must provide `dnsConfig` when `dnsPolicy` is None")}
		}
		if len(config.Nameservers) == 0 {
			return field.ErrorList{field.Required(nameservers, "must provide at least one DNS nameserver when `dnsPolicy` is None")}
		}
	}
	if config == nil {
		return nil
	}
	var errs field.ErrorList
	if len(config.Nameservers) > maxNameservers {
		errs = append(errs, field.Invalid(nameservers, config.Nameservers, "must not have more than 3 nameservers"))
	}
	for i, ns := range config.Nameservers {
		errs = append(errs, LegacyIP(nameservers.Index(i), ns)...)
	}
	if len(config.Searches) > maxSearches {
		errs = append(errs, field.Invalid(searches, config.Searches, "must not have more than 32 search paths"))
	}
	if len(strings.Join(config.Searches, " ")) > maxSearchChars {
		errs = append(errs, field.Invalid(searches, config.Searches, "must not have more than 2048 characters (including spaces) in the search list"))
	}
	for i, search := range config.Searches {
		if search == "." {
			continue
		}
		search = strings.TrimSuffix(search, ".")
		errs = append(errs, rule.Messages(searches.Index(i), search, validation.IsDNS1123SubdomainWithUnderscore(search))...)
	}
	for i, option := range config.Options {
		if option.Name == "" {
			errs = append(errs, field.Required(p.Child("options").Index(i), "must not be empty"))
		}
	}
	return errs
}

// LegacyIP checks an address in a field that accepts leading zeros, and the
// addresses that were already stored.
func LegacyIP(p *field.Path, ip string, stored ...string) field.ErrorList {
	return validation.IsValidIPForLegacyField(p, ip, false, stored)
}

func validateSchedulingGates(gates []corev1.PodSchedulingGate, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for i, gate := range gates {
		errs = append(errs, rule.QualifiedName(gate.Name, p.Index(i))...)
		if seen.Has(gate.Name) {
			errs = append(errs, field.Duplicate(p.Index(i), gate.Name))
		}
		seen.Insert(gate.Name)
	}
	return errs
}

func validateHostAliases(aliases []corev1.HostAlias, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, alias := range aliases {
		errs = append(errs, LegacyIP(p.Index(i).Child("ip"), alias.IP)...)
		for j, hostname := range alias.Hostnames {
			errs = append(errs, rule.Subdomain(hostname, p.Index(i).Child("hostnames").Index(j))...)
		}
	}
	return errs
}

// validateHostPorts requires the ports of a pod on the host's network to be the
// host's; a template may leave them out, as pods get them by default.
func (c *checker) validateHostPorts(p *field.Path) field.ErrorList {
	if !c.spec.HostNetwork {
		return nil
	}
	var errs field.ErrorList
	for i, container := range c.spec.Containers {
		for j, port := range container.Ports {
			if (c.options.Pod || port.HostPort != 0) && port.HostPort != port.ContainerPort {
				errs = append(errs, field.Invalid(p.Index(i).Child("ports").Index(j).Child("hostPort"), port.HostPort,
					"must match `containerPort` when `hostNetwork` is true"))
			}
		}
	}
	return errs
}

// validateHostUsers keeps pods with users of their own out of the host's other
// namespaces (KEP 127).
func (c *checker) validateHostUsers(p *field.Path) field.ErrorList {
	const message = "when `hostUsers` is false"
	if usesHostUsers(c.spec) {
		return nil
	}
	var errs field.ErrorList
	if c.spec.HostNetwork {
		errs = append(errs, field.Forbidden(p.Child("hostNetwork"), message))
	}
	if c.spec.HostPID {
		errs = append(errs, field.Forbidden(p.Child("HostPID"), message))
	}
	if c.spec.HostIPC {
		errs = append(errs, field.Forbidden(p.Child("HostIPC"), message))
	}
	if !c.options.UserVolumeDevices {
		visit(c.spec, p, func(container *corev1.Container, p *field.Path) {
			if len(container.VolumeDevices) > 0 {
				errs = append(errs, field.Forbidden(p.Child("volumeDevices"), message))
			}
		})
	}
	return errs
}

// validateFileKeyVolumes requires the files that environment variables are read
// from to be in an emptyDir (KEP 3721).
func (c *checker) validateFileKeyVolumes(p *field.Path) field.ErrorList {
	sources := map[string]*corev1.Volume{}
	for i := range c.spec.Volumes {
		sources[c.spec.Volumes[i].Name] = &c.spec.Volumes[i]
	}
	var errs field.ErrorList
	visit(c.spec, p, func(container *corev1.Container, p *field.Path) {
		for i, env := range container.Env {
			if env.ValueFrom == nil || env.ValueFrom.FileKeyRef == nil {
				continue
			}
			name, path := env.ValueFrom.FileKeyRef.VolumeName, p.Child("env").Index(i).Child("valueFrom", "fileKeyRef", "volumeName")
			if v, ok := sources[name]; !ok {
				errs = append(errs, field.NotFound(path, name))
			} else if v.EmptyDir == nil {
				errs = append(errs, field.Invalid(path, name, "referenced volume must be of type emptyDir"))
			}
		}
	})
	return errs
}
