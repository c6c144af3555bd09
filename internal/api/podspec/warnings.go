// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/rule"
	"kaji/internal/api/volume"
)

// TemplateWarnings are the warnings for a pod template at p.
func TemplateWarnings(template *corev1.PodTemplateSpec, p *field.Path) []string {
	return Warnings(&template.Spec, &template.ObjectMeta, p)
}

// Warnings are the warnings for a pod spec and its metadata; p is the path of
// the template, or nil for a pod.
func Warnings(spec *corev1.PodSpec, meta *metav1.ObjectMeta, p *field.Path) []string {
	w := &warner{spec: spec, meta: meta, template: p != nil, path: p.Child("spec"), annotations: p.Child("metadata", "annotations")}
	w.nodeLabels()
	w.deprecatedAnnotations()
	w.volumes()
	w.overlaps()
	w.tokenPaths()
	w.duplicates()
	w.fractions(spec.Overhead, w.path.Child("overhead"))
	if spec.SecurityContext == nil || spec.SecurityContext.SeccompProfile == nil {
		w.seccompAnnotation(corev1.SeccompPodAnnotationKey)
	}
	visit(spec, w.path, w.container)
	w.ports()
	if grace := spec.TerminationGracePeriodSeconds; grace != nil && *grace < 0 {
		w.add(w.path.Child("terminationGracePeriodSeconds"), "must be >= 0; negative values are invalid and will be treated as 1")
	}
	w.nullSelectors()
	return w.out
}

type warner struct {
	spec              *corev1.PodSpec
	meta              *metav1.ObjectMeta
	template          bool
	path, annotations *field.Path
	out               []string
}

func (w *warner) add(p *field.Path, format string, args ...any) {
	w.out = append(w.out, fmt.Sprintf("%s: %s", p, fmt.Sprintf(format, args...)))
}

// DeprecatedNodeLabel is what to say of a label that nodes no longer get.
func DeprecatedNodeLabel(key string) (message string, deprecated bool) {
	switch key {
	case "beta.kubernetes.io/arch":
		return `deprecated since v1.14; use "kubernetes.io/arch" instead`, true
	case "beta.kubernetes.io/os":
		return `deprecated since v1.14; use "kubernetes.io/os" instead`, true
	case corev1.LabelFailureDomainBetaRegion:
		return `deprecated since v1.17; use "topology.kubernetes.io/region" instead`, true
	case corev1.LabelFailureDomainBetaZone:
		return `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`, true
	case corev1.LabelInstanceType:
		return `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`, true
	}
	return "", false
}

// NodeSelectorTermWarnings are the warnings for a choice of nodes at p; with
// invalidValues also for label values that no node can have.
func NodeSelectorTermWarnings(term *corev1.NodeSelectorTerm, invalidValues bool, p *field.Path) []string {
	var out []string
	for i, expression := range term.MatchExpressions {
		p := p.Child("matchExpressions").Index(i)
		if message, deprecated := DeprecatedNodeLabel(expression.Key); deprecated {
			out = append(out, fmt.Sprintf("%s: %s is %s", p.Child("key"), expression.Key, message))
		}
		if !invalidValues {
			continue
		}
		for j, value := range expression.Values {
			for _, message := range labelValue(value) {
				out = append(out, fmt.Sprintf("%s: %s is invalid, %s", p.Child("values").Index(j), value, message))
			}
		}
	}
	return out
}

func (w *warner) nodeLabels() {
	for _, key := range rule.SortedKeys(w.spec.NodeSelector) {
		if message, deprecated := DeprecatedNodeLabel(key); deprecated {
			w.add(w.path.Child("nodeSelector").Key(key), "%s", message)
		}
	}
	if w.spec.Affinity != nil && w.spec.Affinity.NodeAffinity != nil {
		p, a := w.path.Child("affinity", "nodeAffinity"), w.spec.Affinity.NodeAffinity
		if required := a.RequiredDuringSchedulingIgnoredDuringExecution; required != nil {
			for i := range required.NodeSelectorTerms {
				w.out = append(w.out, NodeSelectorTermWarnings(&required.NodeSelectorTerms[i], false, p.Child(requiredTerms, "nodeSelectorTerms").Index(i))...)
			}
		}
		for i := range a.PreferredDuringSchedulingIgnoredDuringExecution {
			preference := &a.PreferredDuringSchedulingIgnoredDuringExecution[i].Preference
			w.out = append(w.out, NodeSelectorTermWarnings(preference, true, p.Child(preferredTerms).Index(i).Child("preference"))...)
		}
	}
	for i, c := range w.spec.TopologySpreadConstraints {
		p := w.path.Child("topologySpreadConstraints").Index(i)
		if message, deprecated := DeprecatedNodeLabel(c.TopologyKey); deprecated {
			w.add(p.Child("topologyKey"), "%s is %s", c.TopologyKey, message)
		}
		if c.LabelSelector == nil {
			w.add(p.Child("labelSelector"), "a null labelSelector results in matching no pod")
		}
	}
}

func (w *warner) deprecatedAnnotations() {
	for _, a := range []struct{ key, message string }{
		{"scheduler.alpha.kubernetes.io/critical-pod", `non-functional in v1.16+; use the "priorityClassName" field instead`},
		{"security.alpha.kubernetes.io/sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
		{"security.alpha.kubernetes.io/unsafe-sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
	} {
		if _, ok := w.meta.Annotations[a.key]; ok {
			w.add(w.annotations.Key(a.key), "%s", a.message)
		}
	}
}

func (w *warner) volumes() {
	for i := range w.spec.Volumes {
		v, p := &w.spec.Volumes[i], w.path.Child("volumes").Index(i)
		for _, d := range []struct {
			used          bool
			name, message string
		}{
			{v.PhotonPersistentDisk != nil, "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"},
			{v.GitRepo != nil, "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"},
			{v.ScaleIO != nil, "scaleIO", "deprecated in v1.16, non-functional in v1.22+"},
			{v.Flocker != nil, "flocker", "deprecated in v1.22, non-functional in v1.25+"},
			{v.StorageOS != nil, "storageOS", "deprecated in v1.22, non-functional in v1.25+"},
			{v.Quobyte != nil, "quobyte", "deprecated in v1.22, non-functional in v1.25+"},
			{v.Glusterfs != nil, "glusterfs", "deprecated in v1.25, non-functional in v1.26+"},
			{v.CephFS != nil, "cephfs", "deprecated in v1.28, non-functional in v1.31+"},
			{v.RBD != nil, "rbd", "deprecated in v1.28, non-functional in v1.31+"},
		} {
			if d.used {
				w.add(p.Child(d.name), "%s", d.message)
			}
		}
		if v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
			w.out = append(w.out, volume.ClaimWarnings(&v.Ephemeral.VolumeClaimTemplate.Spec, p.Child("ephemeral", "volumeClaimTemplate", "spec"))...)
		}
	}
}

// tokenPaths warns of files that a projected service account token would hide.
func (w *warner) tokenPaths() {
	tokens := sets.New[string]()
	for _, v := range w.spec.Volumes {
		if v.Projected != nil {
			for _, s := range v.Projected.Sources {
				if s.ServiceAccountToken != nil {
					tokens.Insert(s.ServiceAccountToken.Path)
				}
			}
		}
	}
	if len(tokens) == 0 {
		return
	}
	for i, v := range w.spec.Volumes {
		if v.Projected == nil {
			continue
		}
		p := w.path.Child("volumes").Index(i).Child("projected", "sources")
		check := func(p *field.Path, path string) {
			if tokens.Has(path) {
				w.add(p, "has duplicated path with ServiceAccountToken %q", path)
			}
		}
		for _, s := range v.Projected.Sources {
			if s.ConfigMap != nil {
				for j, item := range s.ConfigMap.Items {
					check(p.Child("configMap").Index(j), item.Path)
				}
			}
			if s.Secret != nil {
				for j, item := range s.Secret.Items {
					check(p.Child("secrets").Index(j), item.Path)
				}
			}
			if s.DownwardAPI != nil {
				for j, item := range s.DownwardAPI.Items {
					check(p.Child("downwardAPI").Index(j), item.Path)
				}
			}
			if s.ClusterTrustBundle != nil {
				check(p.Child("ClusterTrustBundle"), s.ClusterTrustBundle.Path)
			}
		}
	}
}

func (w *warner) duplicates() {
	ips := sets.New[string]()
	for i, alias := range w.spec.HostAliases {
		if ips.Has(alias.IP) {
			w.add(w.path.Child("hostAliases").Index(i).Child("ip"), "duplicate ip %q", alias.IP)
		}
		ips.Insert(alias.IP)
	}
	names := sets.New[string]()
	for i, secret := range w.spec.ImagePullSecrets {
		if names.Has(secret.Name) {
			w.add(w.path.Child("imagePullSecrets").Index(i).Child("name"), "duplicate name %q", secret.Name)
		}
		names.Insert(secret.Name)
	}
	for i, secret := range w.spec.ImagePullSecrets {
		if secret.Name == "" {
			w.add(w.path.Child("imagePullSecrets").Index(i).Child("name"), "invalid empty name %q", secret.Name)
		}
	}
}

func (w *warner) fractions(list corev1.ResourceList, p *field.Path) {
	for _, name := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if q, ok := list[name]; ok && q.MilliValue()%1000 != 0 {
			w.add(p.Key(string(name)), "fractional byte value %q is invalid, must be an integer", q.String())
		}
	}
}

func (w *warner) seccompAnnotation(key string) {
	if _, ok := w.meta.Annotations[key]; ok {
		w.add(w.annotations.Key(key), `non-functional in v1.27+; use the "seccompProfile" field instead`)
	}
}

func (w *warner) container(c *corev1.Container, p *field.Path) {
	if c.SecurityContext == nil || c.SecurityContext.SeccompProfile == nil {
		w.seccompAnnotation(corev1.SeccompContainerAnnotationKeyPrefix + c.Name)
	}
	// In a pod the server has filled in the field from the annotation by now.
	profiled := appArmorOf(w.spec, c) != nil
	if !w.template {
		profiled = w.spec.SecurityContext != nil && w.spec.SecurityContext.AppArmorProfile != nil
	}
	if key := corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix + c.Name; !profiled {
		if _, ok := w.meta.Annotations[key]; ok {
			w.add(w.annotations.Key(key), `deprecated since v1.30; use the "appArmorProfile" field instead`)
		}
	}
	w.fractions(c.Resources.Limits, p.Child("resources", "limits"))
	w.fractions(c.Resources.Requests, p.Child("resources", "requests"))

	names := sets.New[string]()
	for i, env := range c.Env {
		reference := "$(" + env.Name + ")"
		if names.Has(env.Name) && (env.ValueFrom != nil || env.Value == reference || !strings.Contains(env.Value, reference)) {
			w.add(p.Child("env").Index(i), "hides previous definition of %q, which may be dropped when using apply", env.Name)
		}
		names.Insert(env.Name)
	}
}

func (w *warner) ports() {
	type seen struct {
		path *field.Path
		port corev1.ContainerPort
	}
	all := map[string][]seen{}
	visit(w.spec, w.path, func(c *corev1.Container, p *field.Path) {
		for i, port := range c.Ports {
			p := p.Child("ports").Index(i)
			if port.HostIP != "" && port.HostPort == 0 {
				w.add(p, "hostIP set without hostPort: {Name:%s HostPort:%d ContainerPort:%d Protocol:%s HostIP:%s}",
					port.Name, port.HostPort, port.ContainerPort, port.Protocol, port.HostIP)
			}
			key := fmt.Sprintf("%d/%s", port.ContainerPort, port.Protocol)
			for _, other := range all[key] {
				sameHost := port.HostPort == other.port.HostPort
				switch {
				case sameHost && port.HostIP == other.port.HostIP:
					w.add(p, "duplicate port definition with %s", other.path)
				case port.HostPort == 0 || other.port.HostPort == 0:
					w.add(p, "overlapping port definition with %s", other.path)
				case sameHost && (port.HostIP == "") != (other.port.HostIP == ""):
					w.add(p, "dangerously ambiguous port definition with %s", other.path)
				}
			}
			all[key] = append(all[key], seen{p, port})
		}
	})
}

func (w *warner) nullSelectors() {
	if w.spec.Affinity == nil {
		return
	}
	check := func(p *field.Path, required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		const message = "a null labelSelector results in matching no pod"
		for i := range required {
			if required[i].LabelSelector == nil {
				w.add(p.Child(requiredTerms).Index(i).Child("labelSelector"), message)
			}
		}
		for i := range preferred {
			if preferred[i].PodAffinityTerm.LabelSelector == nil {
				w.add(p.Child(preferredTerms).Index(i).Child("podAffinityTerm", "labelSelector"), message)
			}
		}
	}
	if a := w.spec.Affinity.PodAffinity; a != nil {
		check(w.path.Child("affinity", "podAffinity"), a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := w.spec.Affinity.PodAntiAffinity; a != nil {
		check(w.path.Child("affinity", "podAntiAffinity"), a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}
