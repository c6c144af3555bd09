// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"maps"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/controller/podstate"
)

// split returns a pod's set and number by its name; -1 is none.
func split(name string) (string, int) {
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return "", -1
	}
	n, err := strconv.ParseInt(name[i+1:], 10, 32)
	if err != nil || n < 0 || strconv.Itoa(int(n)) != name[i+1:] {
		return "", -1
	}
	return name[:i], int(n)
}

func ordinal(p *corev1.Pod) int { _, n := split(p.Name); return n }

func podName(set *appsv1.StatefulSet, n int) string { return set.Name + "-" + strconv.Itoa(n) }

// start is the first pod's number.
func start(set *appsv1.StatefulSet) int {
	if set.Spec.Ordinals != nil {
		return int(set.Spec.Ordinals.Start)
	}
	return 0
}

// inRange says whether the set wants a pod of the number.
func inRange(set *appsv1.StatefulSet, n int) bool {
	return n >= start(set) && n < start(set)+int(*set.Spec.Replicas)
}

// What follows are the states of a pod as ordering sees them. A pod that was
// not made yet has no phase.

func created(p *corev1.Pod) bool     { return p.Status.Phase != "" }
func terminating(p *corev1.Pod) bool { return p.DeletionTimestamp != nil }
func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
}

func runningAndReady(p *corev1.Pod) bool {
	_, ready := podstate.Ready(p)
	return ready && p.Status.Phase == corev1.PodRunning
}

func available(p *corev1.Pod, minReadySeconds int32, now time.Time) bool {
	ok, _ := podstate.Available(p, minReadySeconds, now)
	return ok && p.Status.Phase == corev1.PodRunning
}

// newPod returns the pod of a number, at the revision it should have.
func (u *update) newPod(n int) *corev1.Pod {
	set, revision := u.updateSet, u.update
	if u.wantsCurrent(n) {
		set, revision = u.currentSet, u.current
	}
	p := podstate.FromTemplate(&set.Spec.Template, set.Namespace, set.Name, *metav1.NewControllerRef(u.set, kind))
	p.Name = podName(set, n)
	p.Spec.Hostname, p.Spec.Subdomain = p.Name, set.Spec.ServiceName
	identify(set, p, n)
	store(set, p, n)
	p.Labels[appsv1.ControllerRevisionHashLabelKey] = revision.Name
	return p
}

// wantsCurrent says whether a new pod is made at the revision the rollout comes
// from: those below the partition are.
func (u *update) wantsCurrent(n int) bool {
	strategy := &u.set.Spec.UpdateStrategy
	if strategy.Type != appsv1.RollingUpdateStatefulSetStrategyType {
		return false
	}
	if strategy.RollingUpdate == nil {
		return n < start(u.set)+int(u.set.Status.CurrentReplicas)
	}
	return n < start(u.set)+partition(u.set)
}

func partition(set *appsv1.StatefulSet) int {
	if r := set.Spec.UpdateStrategy.RollingUpdate; r != nil && r.Partition != nil {
		return int(*r.Partition)
	}
	return 0
}

func identify(set *appsv1.StatefulSet, p *corev1.Pod, n int) {
	labels := maps.Clone(p.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[appsv1.StatefulSetPodNameLabel], labels[appsv1.PodIndexLabel] = podName(set, n), strconv.Itoa(n)
	p.Labels = labels
}

func identified(p *corev1.Pod) bool { return p.Labels[appsv1.StatefulSetPodNameLabel] == p.Name }

// store gives a pod the volumes of its claims; those of the template with the
// same names give way.
func store(set *appsv1.StatefulSet, p *corev1.Pod, n int) {
	volumes, taken := []corev1.Volume{}, map[string]bool{}
	for i := range set.Spec.VolumeClaimTemplates {
		t := &set.Spec.VolumeClaimTemplates[i]
		taken[t.Name] = true
		volumes = append(volumes, corev1.Volume{Name: t.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(set, t, n)}}})
	}
	for _, v := range p.Spec.Volumes {
		if !taken[v.Name] {
			volumes = append(volumes, v)
		}
	}
	p.Spec.Volumes = volumes
}

// stored says whether a pod's volumes are those of its claims.
func stored(set *appsv1.StatefulSet, p *corev1.Pod, n int) bool {
	claims := map[string]string{}
	for _, v := range p.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			claims[v.Name] = v.PersistentVolumeClaim.ClaimName
		}
	}
	for i := range set.Spec.VolumeClaimTemplates {
		t := &set.Spec.VolumeClaimTemplates[i]
		if claims[t.Name] != claimName(set, t, n) {
			return false
		}
	}
	return true
}
