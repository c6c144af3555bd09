// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	v1helper "k8s.io/component-helpers/scheduling/corev1"

	"kaji/internal/controller/podstate"
)

// generationLabel is what pods of old DaemonSets were told apart by.
const generationLabel = "pod-template-generation"

// tolerated are the taints that daemons stay with: they are there to look after
// a node that has trouble.
func tolerated(spec *corev1.PodSpec) []corev1.Toleration {
	exists := func(key string, effect corev1.TaintEffect) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
	}
	out := slices.Clone(spec.Tolerations)
	add := func(t corev1.Toleration) {
		for i := range out {
			if out[i].MatchToleration(&t) {
				out[i] = t
				return
			}
		}
		out = append(out, t)
	}
	add(exists(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute))
	add(exists(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute))
	add(exists(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule))
	add(exists(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule))
	add(exists(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule))
	add(exists(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule))
	if spec.HostNetwork {
		add(exists(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule))
	}
	return out
}

// placement says whether a pod should come to a node, and whether one that is
// there may stay.
type placement struct{ run, stay bool }

// fits says how a set and a node fit; a node that is nil fits none.
func fits(ds *appsv1.DaemonSet, node *corev1.Node) placement {
	if node == nil {
		return placement{}
	}
	spec := ds.Spec.Template.Spec // a shallow copy; nothing below it is changed
	if spec.NodeName != "" && spec.NodeName != node.Name {
		return placement{}
	}
	// As upstream: an affinity that cannot be parsed matches nothing.
	if ok, _ := nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: spec}).Match(node); !ok {
		return placement{}
	}
	tolerations := tolerated(&spec)
	untolerated := func(effects ...corev1.TaintEffect) bool {
		_, found := v1helper.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, tolerations,
			func(t *corev1.Taint) bool { return slices.Contains(effects, t.Effect) }, true)
		return found
	}
	if untolerated(corev1.TaintEffectNoExecute, corev1.TaintEffectNoSchedule) {
		return placement{stay: !untolerated(corev1.TaintEffectNoExecute)}
	}
	return placement{true, true}
}

// nodeOf returns the node a pod runs on or is meant for.
func nodeOf(p *corev1.Pod) string {
	if p.Spec.NodeName != "" {
		return p.Spec.NodeName
	}
	a := p.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, field := range term.MatchFields {
			if field.Key == metav1.ObjectNameField && field.Operator == corev1.NodeSelectorOpIn && len(field.Values) > 0 {
				return field.Values[0]
			}
		}
	}
	return ""
}

// newPod returns a pod for a node.
func (r *round) newPod(node string) *corev1.Pod {
	p := podstate.FromTemplate(&r.ds.Spec.Template, r.ds.Namespace, r.ds.Name, *metav1.NewControllerRef(r.ds, kind))
	p.Spec.Tolerations = tolerated(&p.Spec)
	p.Labels = maps.Clone(p.Labels)
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	if g := generation(r.ds); g != "" {
		p.Labels[generationLabel] = g
	}
	if r.hash != "" {
		p.Labels[appsv1.ControllerRevisionHashLabelKey] = r.hash
	}
	only := &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{
		Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}}}}
	if p.Spec.Affinity == nil {
		p.Spec.Affinity = &corev1.Affinity{}
	}
	if p.Spec.Affinity.NodeAffinity == nil {
		p.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	// It was checked already that the node fits what the template requires.
	p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = only
	return p
}

// generation is the deprecated number of the template, "" without one.
func generation(ds *appsv1.DaemonSet) string {
	return ds.Annotations[appsv1.DeprecatedTemplateGeneration]
}

// current says whether a pod is of the present template.
func (r *round) current(p *corev1.Pod) bool {
	g := generation(r.ds)
	return g != "" && p.Labels[generationLabel] == g || r.hash != "" && p.Labels[appsv1.ControllerRevisionHashLabelKey] == r.hash
}
