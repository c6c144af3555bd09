// SPDX-License-Identifier: Apache-2.0

package replicaset

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/controller/adopt"
	"kaji/internal/controller/podstate"
)

// neighbours counts, by node, the active pods of a set and of all sets that
// have the same controller: a Deployment's pods are spread as a whole.
func (c *Controller) neighbours(rs *appsv1.ReplicaSet) map[string]int {
	perNode := map[string]int{}
	owner := metav1.GetControllerOf(rs)
	for _, other := range c.sets.list(rs.Namespace) {
		ref := metav1.GetControllerOf(other)
		if other.UID != rs.UID && (owner == nil || ref == nil || ref.UID != owner.UID) {
			continue
		}
		for _, pod := range adopt.Owned(c.pods, other.UID) {
			if podstate.Active(pod) {
				perNode[pod.Spec.NodeName]++
			}
		}
	}
	return perNode
}

// rank orders pods by how little they are missed: not scheduled, not running,
// not ready, cheap to delete, crowded together, ready only shortly, restarted
// often, young. Ages count by their magnitude; of equal ones the UID decides,
// which is as good as chance.
func rank(pods []*corev1.Pod, perNode map[string]int, now time.Time) []*corev1.Pod {
	phase := map[corev1.PodPhase]int{corev1.PodPending: 0, corev1.PodUnknown: 1, corev1.PodRunning: 2}
	out := slices.Clone(pods)
	slices.SortStableFunc(out, func(a, b *corev1.Pod) int {
		aSince, aReady := podstate.Ready(a)
		bSince, bReady := podstate.Ready(b)
		before := cmp.Or(
			cmp.Compare(number(a.Spec.NodeName != ""), number(b.Spec.NodeName != "")),
			cmp.Compare(phase[a.Status.Phase], phase[b.Status.Phase]),
			cmp.Compare(number(aReady), number(bReady)),
			cmp.Compare(deletionCost(a), deletionCost(b)),
			cmp.Compare(perNode[b.Spec.NodeName], perNode[a.Spec.NodeName]),
		)
		if before == 0 && aReady && bReady {
			before = younger(a, b, aSince, bSince, now)
		}
		return cmp.Or(before, cmp.Compare(restarts(b), restarts(a)), younger(a, b, a.CreationTimestamp.Time, b.CreationTimestamp.Time, now))
	})
	return out
}

// younger puts the pod first whose time is later by magnitude; an unknown time
// counts as the latest.
func younger(a, b *corev1.Pod, aTime, bTime, now time.Time) int {
	switch {
	case aTime.Equal(bTime):
		return 0
	case aTime.IsZero():
		return -1
	case bTime.IsZero():
		return 1
	}
	return cmp.Or(cmp.Compare(magnitude(now.Sub(aTime)), magnitude(now.Sub(bTime))), cmp.Compare(a.UID, b.UID))
}

func magnitude(d time.Duration) int {
	if d <= 0 {
		return -1
	}
	return int(math.Log2(float64(d)))
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

func deletionCost(p *corev1.Pod) int {
	n, err := strconv.ParseInt(p.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return int(n)
}

func restarts(p *corev1.Pod) int {
	most := 0
	for _, s := range p.Status.ContainerStatuses {
		most = max(most, int(s.RestartCount))
	}
	return most
}
