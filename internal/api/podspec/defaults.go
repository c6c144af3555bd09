// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api/rule"
	"kaji/internal/api/volume"
)

// DefaultTemplate fills in the defaults of a pod template.
func DefaultTemplate(template *corev1.PodTemplateSpec) { Default(&template.Spec) }

// Default fills in the defaults that every pod spec gets. What only pods get,
// and templates do not, is added by DefaultPod.
func Default(spec *corev1.PodSpec) {
	orElse(&spec.DNSPolicy, corev1.DNSClusterFirst)
	orElse(&spec.RestartPolicy, corev1.RestartPolicyAlways)
	orElse(&spec.SchedulerName, corev1.DefaultSchedulerName)
	if spec.SecurityContext == nil {
		spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	pointerOrElse(&spec.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)
	// The deprecated name and serviceAccountName are one field.
	if spec.ServiceAccountName == "" {
		spec.ServiceAccountName = spec.DeprecatedServiceAccount
	}
	spec.DeprecatedServiceAccount = spec.ServiceAccountName
	rule.RoundUp(spec.Overhead)
	if spec.Resources != nil {
		defaultResources(spec.Resources)
	}
	for i := range spec.Volumes {
		defaultVolume(&spec.Volumes[i])
	}
	for i := range spec.InitContainers {
		defaultContainer(&spec.InitContainers[i])
	}
	for i := range spec.Containers {
		defaultContainer(&spec.Containers[i])
	}
	for i := range spec.EphemeralContainers {
		defaultContainer((*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
}

func defaultResources(r *corev1.ResourceRequirements) {
	rule.RoundUp(r.Limits)
	rule.RoundUp(r.Requests)
}

func defaultContainer(c *corev1.Container) {
	orElse(&c.ImagePullPolicy, pullPolicy(c.Image))
	orElse(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	orElse(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	defaultResources(&c.Resources)
	for i := range c.Ports {
		orElse(&c.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil {
			defaultFieldRef(from.FieldRef)
			if from.FileKeyRef != nil {
				pointerOrElse(&from.FileKeyRef.Optional, false)
			}
		}
	}
	defaultProbe(c.LivenessProbe)
	defaultProbe(c.ReadinessProbe)
	defaultProbe(c.StartupProbe)
	if c.Lifecycle != nil {
		for _, h := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if h != nil {
				defaultHTTPGet(h.HTTPGet)
			}
		}
	}
}

func defaultProbe(p *corev1.Probe) {
	if p == nil {
		return
	}
	orElse(&p.TimeoutSeconds, 1)
	orElse(&p.PeriodSeconds, 10)
	orElse(&p.SuccessThreshold, 1)
	orElse(&p.FailureThreshold, 3)
	defaultHTTPGet(p.HTTPGet)
	if p.GRPC != nil {
		pointerOrElse(&p.GRPC.Service, "")
	}
}

func defaultHTTPGet(a *corev1.HTTPGetAction) {
	if a == nil {
		return
	}
	orElse(&a.Path, "/")
	orElse(&a.Scheme, corev1.URISchemeHTTP)
}

func defaultFieldRef(ref *corev1.ObjectFieldSelector) {
	if ref != nil {
		orElse(&ref.APIVersion, "v1")
	}
}

// pullPolicy is Always for an image whose tag is latest or missing.
func pullPolicy(image string) corev1.PullPolicy {
	if tagOf(image) == "latest" {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// tagOf is the tag of an image reference, "latest" when it has neither tag nor
// digest, and empty when the reference is malformed.
func tagOf(image string) string {
	name, _, digested := strings.Cut(image, "@")
	last := name[strings.LastIndex(name, "/")+1:]
	_, tag, tagged := strings.Cut(last, ":")
	switch {
	case !isReference(name, tagged, tag):
		return ""
	case tagged:
		return tag
	case digested:
		return ""
	}
	return "latest"
}

// isReference says whether name can be the repository of an image.
func isReference(name string, tagged bool, tag string) bool {
	if tagged {
		name = strings.TrimSuffix(name, ":"+tag)
		if tag == "" || len(tag) > 128 || strings.Trim(tag, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != "" {
			return false
		}
	}
	first, rest, slash := strings.Cut(name, "/")
	if slash && (strings.ContainsAny(first, ".:") || first == "localhost" || strings.ToLower(first) != first) {
		name = rest // a registry host may hold capitals and a port
	}
	if name == "" || len(name) > 255 {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789_.-") != "" || strings.Trim(part[:1]+part[len(part)-1:], "_.-") == "" {
			return false
		}
	}
	return true
}

func defaultVolume(v *corev1.Volume) {
	if v.VolumeSource == (corev1.VolumeSource{}) {
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	volume.DefaultHostPath(v.HostPath)
	volume.DefaultAzureDisk(v.AzureDisk)
	volume.DefaultISCSI(v.ISCSI)
	if s := v.RBD; s != nil {
		volume.DefaultRBD(&s.RBDPool, &s.RadosUser, &s.Keyring)
	}
	if s := v.ScaleIO; s != nil {
		volume.DefaultScaleIO(&s.StorageMode, &s.FSType)
	}
	if s := v.Image; s != nil {
		orElse(&s.PullPolicy, pullPolicy(s.Reference))
	}
	if s := v.Secret; s != nil {
		pointerOrElse(&s.DefaultMode, corev1.SecretVolumeSourceDefaultMode)
	}
	if s := v.ConfigMap; s != nil {
		pointerOrElse(&s.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
	}
	if s := v.DownwardAPI; s != nil {
		pointerOrElse(&s.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
		defaultDownwardAPI(s.Items)
	}
	if s := v.Ephemeral; s != nil && s.VolumeClaimTemplate != nil {
		volume.DefaultClaimSpec(&s.VolumeClaimTemplate.Spec)
	}
	if s := v.Projected; s != nil {
		pointerOrElse(&s.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
		for i := range s.Sources {
			source := &s.Sources[i]
			if source.DownwardAPI != nil {
				defaultDownwardAPI(source.DownwardAPI.Items)
			}
			if source.ServiceAccountToken != nil {
				pointerOrElse(&source.ServiceAccountToken.ExpirationSeconds, 60*60)
			}
		}
	}
}

func defaultDownwardAPI(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		defaultFieldRef(items[i].FieldRef)
	}
}

func orElse[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func pointerOrElse[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}
