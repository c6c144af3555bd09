// SPDX-License-Identifier: Apache-2.0

package defaultpreemption

import (
	"context"
	"encoding/json"
	"fmt"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// parallelEvictions bounds the requests under way for one pod.
const parallelEvictions = 16

// evict removes the victims beside the loop. Pods of lower priority that are
// nominated for the same node lose their nomination, as they would not fit.
func (p *Plugin) evict(c *plugin.Cycle, best candidate) {
	preemptor := c.Pod.Object
	var rivals []*snapshot.Pod
	for _, r := range best.node.Nominated {
		if r.Priority() < c.Pod.Priority() && r.UID() != preemptor.UID {
			rivals = append(rivals, r)
		}
	}
	for _, r := range rivals {
		c.Snapshot.Nominate(r, "")
	}
	var victims []*corev1.Pod
	for _, v := range best.victims.Pods {
		if p.h.Reject(v.UID, Name, "preempted") {
			p.announce(preemptor, v, best.node.Name) // it was held back at Permit and ran nowhere
			continue
		}
		victims = append(victims, v)
	}
	if len(victims)+len(rivals) == 0 {
		return
	}
	p.preempting[preemptor.UID] = struct{}{}
	node := best.node.Name
	p.h.Go(func(ctx context.Context) {
		for _, r := range rivals {
			p.forgetNomination(ctx, r.Object)
		}
		var group errgroup.Group
		group.SetLimit(parallelEvictions)
		for _, v := range victims {
			group.Go(func() error {
				err := p.evictOne(ctx, preemptor, v)
				if err == nil {
					p.announce(preemptor, v, node)
				}
				return err
			})
		}
		err := group.Wait()
		p.h.Post(func() {
			delete(p.preempting, preemptor.UID)
			if err != nil || p.h.Gated(preemptor.UID) == Name {
				p.h.Activate(preemptor.UID)
			}
		})
	})
}

func (p *Plugin) announce(preemptor, victim *corev1.Pod, node string) {
	// No related object: upstream's event has none either.
	p.h.Event(victim, nil, corev1.EventTypeNormal, "Preempted", "Preempting",
		fmt.Sprintf("Preempted by pod %v on node %v", preemptor.UID, node))
}

// evictOne says on the victim why it goes, then deletes it.
func (p *Plugin) evictOne(ctx context.Context, preemptor, victim *corev1.Pod) error {
	cond := corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler,
		Message:            fmt.Sprintf("%s: preempting to accommodate a higher priority pod", preemptor.Spec.SchedulerName),
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

// violations parts the pods whose eviction would go beyond a disruption
// budget from the others. Budgets are used up in the order given.
func violations(pods []*snapshot.Pod, budgets []*policyv1.PodDisruptionBudget) (violating, free []*snapshot.Pod) {
	left := make([]int32, len(budgets))
	selectors := make([]labels.Selector, len(budgets))
	for i, b := range budgets {
		left[i] = b.Status.DisruptionsAllowed
		if s, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil && !s.Empty() {
			selectors[i] = s
		}
	}
	for _, pod := range pods {
		over := false
		for i, b := range budgets {
			if len(pod.Object.Labels) == 0 || b.Namespace != pod.Object.Namespace || selectors[i] == nil || !selectors[i].Matches(labels.Set(pod.Object.Labels)) {
				continue
			}
			if _, counted := b.Status.DisruptedPods[pod.Object.Name]; counted {
				continue
			}
			left[i]--
			over = over || left[i] < 0
		}
		if over {
			violating = append(violating, pod)
		} else {
			free = append(free, pod)
		}
	}
	return violating, free
}
