// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// shape is one kind of pods and the nodes they meet.
type shape struct {
	name string
	node func(i int, n *corev1.Node)
	pod  func(i int, p *corev1.Pod)
	// filler makes the pods that are bound before, one a node; nil for none.
	filler func(i int, p *corev1.Pod)
	// churn keeps making and deleting other nodes meanwhile.
	churn bool
	// perNode bounds the pods by the nodes: no two fit on one.
	perNode bool
	// waits makes the pods that are there before and never find a node, one for
	// each pod that does; nil for none.
	waits func(i int, p *corev1.Pod)
	// once makes what the whole run needs, onNode what belongs to a node, needs
	// what a pod needs; nil for nothing.
	once          func(ctx context.Context, r *schedulerRun) error
	onNode, needs func(ctx context.Context, r *schedulerRun, i int) error
	// undo removes what of it does not go with the namespace.
	undo func(ctx context.Context, r *schedulerRun, i int)
}

const zones = 10

var group = &metav1.LabelSelector{MatchLabels: map[string]string{"group": "bench"}}

func shapes() []shape {
	return []shape{
		{name: "plain"},
		{name: "node affinity", pod: func(_ int, p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
					{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{"zone-1", "zone-3"}}}}}}}}
		}},
		{name: "taints", node: func(i int, n *corev1.Node) {
			if i%2 == 0 {
				n.Spec.Taints = []corev1.Taint{{Key: "dedicated", Value: "other", Effect: corev1.TaintEffectNoSchedule}}
			}
		}, pod: func(i int, p *corev1.Pod) {
			if i%2 == 0 {
				p.Spec.Tolerations = []corev1.Toleration{{Key: "dedicated", Operator: corev1.TolerationOpExists}}
			}
		}},
		{name: "spreading", pod: func(_ int, p *corev1.Pod) {
			p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 5, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: group}}
		}},
		{name: "preferred spreading", pod: func(_ int, p *corev1.Pod) {
			p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 5, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: group}}
		}},
		{name: "pod affinity", pod: func(_ int, p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
				{TopologyKey: corev1.LabelTopologyZone, LabelSelector: group}}}}
			// One zone cannot hold all of them by default.
			p.Spec.Containers[0].Resources = corev1.ResourceRequirements{}
		}},
		{name: "pod anti-affinity", perNode: true, pod: func(_ int, p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
				{TopologyKey: corev1.LabelHostname, LabelSelector: group}}}}
		}},
		{name: "preferred pod affinity", pod: func(_ int, p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{
				{Weight: 10, PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: group}}}}}
		}},
		{name: "preemption", perNode: true,
			filler: func(_ int, p *corev1.Pod) {
				p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](0)
				p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse("30")
			},
			pod: func(_ int, p *corev1.Pod) {
				p.Spec.PriorityClassName = "system-node-critical"
				p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse("10")
			}},
		{name: "churn", churn: true},
		{name: "gated pods", waits: func(_ int, p *corev1.Pod) {
			p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/later"}}
		}},
		{name: "unschedulable pods", waits: func(_ int, p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse("1k")
		}},
		{name: "mixed", pod: func(i int, p *corev1.Pod) {
			all := shapes()[1:8] // the kinds of pods alone
			if change := all[i%len(all)].pod; change != nil && !all[i%len(all)].perNode {
				change(i, p)
			}
		}},
		{name: "volumes", needs: makeVolume, undo: removeVolume, pod: func(i int, p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(i)}}}}
		}},
		{name: "claimed devices", once: makeDeviceClass, onNode: makeDevices, needs: makeClaim, undo: removeDevices, pod: func(i int, p *corev1.Pod) {
			p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "d", ResourceClaimName: ptr.To(claimName(i))}}
			p.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "d"}}
		}},
	}
}

// Shapes are the names that Scheduler.Shapes knows.
func Shapes() []string {
	var names []string
	for _, s := range shapes() {
		names = append(names, s.name)
	}
	return names
}
