// SPDX-License-Identifier: Apache-2.0

package dynamicresources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/resourceclaim"

	"kaji/internal/scheduler/plugin"
)

// errNoState is upstream's answer to pods that an earlier plugin refused
// before this one looked at them; users see it in messages.
var errNoState = errors.New("not found")

// PostFilter implements plugin.PostFilterer: a claim that is allocated for this
// pod alone where the pod does not fit is given back.
func (p *Plugin) PostFilter(_ context.Context, c *plugin.Cycle) (*plugin.Nomination, *plugin.Status) {
	st, _ := c.State[Name].(*state)
	if st == nil && c.Refused {
		return nil, plugin.AsStatus(Name, errNoState)
	}
	if st == nil {
		return nil, plugin.NewStatus(Name, plugin.Unschedulable)
	}
	pod := c.Pod.Object
	for _, claim := range st.claims {
		if _, unsuited := st.refused[claim.UID]; !unsuited {
			continue
		}
		if n := len(claim.Status.ReservedFor); n > 1 || n == 1 && !resourceclaim.IsReservedForPod(pod, claim, false) {
			continue
		}
		free := claim.DeepCopy()
		free.Status = resourcev1.ResourceClaimStatus{}
		p.h.Go(func(ctx context.Context) {
			// A conflict means that others changed the claim, which is an
			// event that lets the pod try again.
			_, _ = p.claims.UpdateStatus(ctx, free)
		})
		return nil, plugin.NewStatus(Name, plugin.Unschedulable, "deallocation of ResourceClaim completed")
	}
	if sp := st.special; sp != nil && sp.stale != nil {
		stale := sp.stale
		p.h.Go(func(ctx context.Context) { _ = p.remove(ctx, stale) })
		return nil, plugin.NewStatus(Name, plugin.Unschedulable, "deletion of ResourceClaim completed")
	}
	return nil, plugin.NewStatus(Name, plugin.Unschedulable)
}

// PostFilterGroup implements plugin.GroupPostFilterer: PostFilter for each pod of
// the group that was tried.
func (p *Plugin) PostFilterGroup(ctx context.Context, g *plugin.GroupCycle) (map[types.UID]string, *plugin.Status) {
	for _, c := range g.Cycles {
		if c.State[Name] != nil {
			_, _ = p.PostFilter(ctx, c)
		}
	}
	return nil, plugin.NewStatus(Name, plugin.Unschedulable, "deallocation and deletion of ResourceClaims completed")
}

// Reserve implements plugin.Reserver.
func (p *Plugin) Reserve(_ context.Context, c *plugin.Cycle, nodeName string) *plugin.Status {
	st, _ := c.State[Name].(*state)
	if st == nil {
		return nil
	}
	pod := c.Pod.Object
	for _, claim := range st.claims {
		next := claim.DeepCopy()
		if i := slices.Index(st.pending, claim); i >= 0 {
			results := st.results[nodeName]
			if i >= len(results) {
				return plugin.AsStatus(Name, fmt.Errorf("internal error, have %d allocations, %d claims to allocate", len(results), len(st.pending)))
			}
			next.Status.Allocation = &results[i]
		} else if resourceclaim.IsReservedForPod(pod, claim, false) {
			continue // nothing to write
		}
		next.Status.ReservedFor = append(next.Status.ReservedFor,
			resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
		p.promises.assumed[next.Namespace+"/"+next.Name] = assumed{next, claim.ResourceVersion}
		st.chosen = append(st.chosen, next)
	}
	if st.special != nil {
		if refusal := st.special.reserve(p, nodeName, st.results[nodeName]); refusal != nil {
			return refusal
		}
	}
	st.results = nil
	return nil
}

// Unreserve implements plugin.Reserver.
func (p *Plugin) Unreserve(_ context.Context, c *plugin.Cycle, _ string) {
	st, _ := c.State[Name].(*state)
	if st == nil {
		return
	}
	if st.special != nil {
		st.special.unreserve(p)
	}
	pod := c.Pod.Object
	for _, claim := range st.chosen {
		if key := claim.Namespace + "/" + claim.Name; p.promises.assumed[key].claim == claim {
			delete(p.promises.assumed, key)
		}
		known, err := p.claims.Cached(claim.Namespace, claim.Name)
		if err == nil && resourceclaim.IsReservedForPod(pod, known, false) {
			p.h.Go(func(ctx context.Context) { p.release(ctx, pod, claim) })
		}
	}
}

// release takes the pod out of a claim's reservations. A failure leaves one
// for a pod that does not run, which the claim controller removes.
func (p *Plugin) release(ctx context.Context, pod *corev1.Pod, claim *resourcev1.ResourceClaim) {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": claim.UID},
		"status":   map[string]any{"reservedFor": []any{map[string]any{"$patch": "delete", "uid": pod.UID}}},
	})
	if err == nil {
		_, _ = p.claims.Patch(ctx, claim.Namespace, claim.Name, types.StrategicMergePatchType, patch, "status")
	}
}

// WillPreBind implements plugin.PreBinder.
func (p *Plugin) WillPreBind(c *plugin.Cycle) bool {
	st, _ := c.State[Name].(*state)
	return st != nil && (len(st.chosen) > 0 || st.special != nil && st.special.chosen != nil)
}

// PreBind implements plugin.PreBinder: it writes allocations and reservations,
// and waits for devices that must be attached first.
func (p *Plugin) PreBind(ctx context.Context, c *plugin.Cycle, nodeName string) *plugin.Status {
	st := c.State[Name].(*state)
	written := slices.Clone(st.chosen)
	for _, claim := range st.chosen {
		if _, err := p.write(ctx, claim.DeepCopy()); err != nil {
			return plugin.AsStatus(Name, err)
		}
	}
	if st.special != nil && st.special.chosen != nil {
		claim, err := st.special.write(ctx, p, nodeName)
		if err != nil {
			return plugin.AsStatus(Name, err)
		}
		written = append(written, claim)
	}
	return p.await(ctx, c.Pod.Object, written, nodeName)
}

// write stores a claim's allocation and reservations; claim becomes part of
// what is written.
func (p *Plugin) write(ctx context.Context, claim *resourcev1.ResourceClaim) (*resourcev1.ResourceClaim, error) {
	next := claim
	if !slices.Contains(next.Finalizers, resourcev1.Finalizer) {
		// The finalizer must be there before devices are taken.
		next.Finalizers = append(next.Finalizers, resourcev1.Finalizer)
		updated, err := p.claims.Update(ctx, next)
		if err != nil {
			return nil, fmt.Errorf("add finalizer to claim %s/%s: %w", claim.Namespace, claim.Name, err)
		}
		next = updated.DeepCopy()
		next.Status.Allocation, next.Status.ReservedFor = claim.Status.Allocation, claim.Status.ReservedFor
	}
	if a := next.Status.Allocation; a != nil && a.AllocationTimestamp == nil {
		now := metav1.Now()
		a.AllocationTimestamp = &now
	}
	updated, err := p.claims.UpdateStatus(ctx, next)
	if err != nil {
		return nil, fmt.Errorf("reserve claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return updated, nil
}
