// SPDX-License-Identifier: Apache-2.0

package defaultpreemption

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// parallelEvictions bounds the requests under way for one pod.
const parallelEvictions = 16

// preemptor is who pods are evicted for.
type preemptor struct {
	kind      string // "pod" or "podgroup"
	uid       types.UID
	node      string // "cluster" for a group
	scheduler string
	pods      []types.UID // which wait for the end of the evictions
	related   client.Object
}

// preempt evicts a candidate's victims for the pod. Pods of lower priority that
// are nominated for the same node lose their nomination, as they would not fit.
func (p *Plugin) preempt(c *plugin.Cycle, best candidate) {
	pod := c.Pod.Object
	var rivals []*snapshot.Pod
	for _, r := range best.node.Nominated {
		if r.Priority() < c.Pod.Priority() && r.UID() != pod.UID {
			rivals = append(rivals, r)
		}
	}
	for _, r := range rivals {
		c.Snapshot.Nominate(r, "")
	}
	who := &preemptor{kind: "pod", uid: pod.UID, node: best.node.Name, scheduler: pod.Spec.SchedulerName, pods: []types.UID{pod.UID}}
	p.evict(who, best.victims.Pods, rivals)
}

// evict removes the victims beside the loop; rivals are told that they are no
// longer nominated.
func (p *Plugin) evict(who *preemptor, all []*corev1.Pod, rivals []*snapshot.Pod) {
	var victims []*corev1.Pod
	for _, v := range all {
		if v.DeletionTimestamp != nil {
			continue // it goes already
		}
		if p.h.Reject(v.UID, Name, "preempted") {
			p.announce(who, v) // it was held back at Permit and ran nowhere
			continue
		}
		victims = append(victims, v)
	}
	if len(victims)+len(rivals) == 0 {
		return
	}
	p.preempting[who.uid] = struct{}{}
	if who.related != nil {
		for _, v := range victims {
			p.evicted[v.UID] = struct{}{}
		}
	}
	p.h.Go(func(ctx context.Context) {
		began := time.Now()
		for _, r := range rivals {
			p.forgetNomination(ctx, r.Object)
		}
		var group errgroup.Group
		group.SetLimit(parallelEvictions)
		for _, v := range victims {
			group.Go(func() error {
				err := p.evictOne(ctx, who, v)
				if err == nil {
					p.announce(who, v)
				}
				return err
			})
		}
		err := group.Wait()
		p.h.Evicted(time.Since(began), err)
		p.h.Post(func() {
			delete(p.preempting, who.uid)
			for _, uid := range who.pods {
				if err != nil || p.h.Gated(uid) == Name {
					p.h.Activate(uid)
				}
			}
		})
	})
}

func (p *Plugin) announce(who *preemptor, victim *corev1.Pod) {
	// A pod is no related object: upstream's event has none either.
	p.h.Event(victim, who.related, corev1.EventTypeNormal, "Preempted", "Preempting",
		fmt.Sprintf("Preempted by %s %v on node %v", who.kind, who.uid, who.node))
}

// evictOne says on the victim why it goes, then deletes it.
func (p *Plugin) evictOne(ctx context.Context, who *preemptor, victim *corev1.Pod) error {
	cond := corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler,
		Message:            fmt.Sprintf("%s: preempting to accommodate a higher priority %s", who.scheduler, who.kind),
		ObservedGeneration: victim.Generation, LastTransitionTime: metav1.Now(),
	}
	patch := map[string]any{"metadata": map[string]any{"uid": victim.UID}, "status": map[string]any{"conditions": []corev1.PodCondition{cond}}}
	err := p.patchStatus(ctx, victim, patch)
	if err == nil {
		err = p.pods.Delete(ctx, victim.Namespace, victim.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(victim.UID))})
	}
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // somebody else removed it
	}
	return err
}

func (p *Plugin) patchStatus(ctx context.Context, pod *corev1.Pod, patch map[string]any) error {
	data, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	_, err = p.pods.Patch(ctx, pod.Namespace, pod.Name, types.StrategicMergePatchType, data, "status")
	return err
}

func (p *Plugin) forgetNomination(ctx context.Context, pod *corev1.Pod) {
	// A failure leaves a stale hint in the status, no more.
	_ = p.patchStatus(ctx, pod, map[string]any{"status": map[string]any{"nominatedNodeName": nil}})
}

// violations parts the units whose eviction would go beyond a disruption
// budget from the others. Budgets are used up in the order given.
func violations(units []*unit, budgets []*policyv1.PodDisruptionBudget) (violating, free []*unit) {
	left := make([]int32, len(budgets))
	selectors := make([]labels.Selector, len(budgets))
	for i, b := range budgets {
		left[i] = b.Status.DisruptionsAllowed
		if s, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil && !s.Empty() {
			selectors[i] = s
		}
	}
	over := func(pod *corev1.Pod) (over bool) {
		for i, b := range budgets {
			if len(pod.Labels) == 0 || b.Namespace != pod.Namespace || selectors[i] == nil || !selectors[i].Matches(labels.Set(pod.Labels)) {
				continue
			}
			if _, counted := b.Status.DisruptedPods[pod.Name]; counted {
				continue
			}
			left[i]--
			over = over || left[i] < 0
		}
		return over
	}
	for _, u := range units {
		u.violations = 0
		for _, pod := range u.pods {
			if over(pod.Object) {
				u.violations++
			}
		}
		if u.violations > 0 {
			violating = append(violating, u)
		} else {
			free = append(free, u)
		}
	}
	return violating, free
}
