// SPDX-License-Identifier: Apache-2.0

// Package dynamicresources is the plugin DynamicResources: devices that pods
// claim are allocated from the slices that drivers publish, on the node that
// is chosen.
package dynamicresources

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/dynamic-resource-allocation/structured"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Name is the plugin's name.
const Name = "DynamicResources"

// celCacheSize is how many compiled selectors are kept.
const celCacheSize = 256

// Plugin implements PreEnqueue, Filter, PostFilter, Score, Reserve and PreBind.
type Plugin struct {
	h       plugin.Handle
	claims  client.Typed[*resourcev1.ResourceClaim]
	classes client.Typed[*resourcev1.DeviceClass]
	slices  client.Typed[*resourcev1.ResourceSlice]
	timeout time.Duration
	// bindingTimeout bounds the wait for devices to be attached.
	bindingTimeout time.Duration
	cache          *cel.Cache // made when the first pod claims something

	// assumed are claims as Reserve promised them, by key; each holds as long
	// as the informer's object is the one it was made from.
	assumed map[string]assumed

	elsewhere, exhausted, slow *plugin.Status
}

type assumed struct {
	claim *resourcev1.ResourceClaim
	base  string
}

// New returns the plugin.
func New(h plugin.Handle, args *configv1.DynamicResourcesArgs) *Plugin {
	c := h.Client()
	p := &Plugin{
		h: h, claims: client.For[*resourcev1.ResourceClaim](c), classes: client.For[*resourcev1.DeviceClass](c),
		slices: client.For[*resourcev1.ResourceSlice](c), assumed: map[string]assumed{},
		timeout: ptr.Deref(args.FilterTimeout, metav1.Duration{}).Duration,

		bindingTimeout: ptr.Deref(args.BindingTimeout, metav1.Duration{Duration: configv1.DynamicResourcesBindingTimeoutDefault}).Duration,

		elsewhere: plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "resourceclaim not available on the node"),
		exhausted: plugin.NewStatus(Name, plugin.Unschedulable, "cannot allocate all claims"),
		slow:      plugin.NewStatus(Name, plugin.Unschedulable, "timed out trying to allocate devices"),
	}
	p.claims.Informer()
	p.classes.Informer()
	p.slices.Informer()
	return p
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// Sign implements plugin.Signer: only pods without claims share.
func (p *Plugin) Sign(c *plugin.Cycle, key []byte) ([]byte, bool) {
	return key, len(c.Pod.Object.Spec.ResourceClaims) == 0
}

// state goes from Filter to PreBind.
type state struct {
	claims  []*resourcev1.ResourceClaim // of the pod
	pending []*resourcev1.ResourceClaim // of those, the ones without an allocation
	// results are the allocations of pending, by node.
	results map[string][]resourcev1.AllocationResult
	// chosen are the claims as they must be written.
	chosen []*resourcev1.ResourceClaim
	// refused are the claims whose allocation some node did not suit.
	refused map[types.UID]struct{}
}

// podClaims returns the pod's claims as they are or are promised.
func (p *Plugin) podClaims(pod *corev1.Pod) ([]*resourcev1.ResourceClaim, error) {
	var out []*resourcev1.ResourceClaim
	for i := range pod.Spec.ResourceClaims {
		name, mustCheckOwner, err := resourceclaim.Name(pod, &pod.Spec.ResourceClaims[i])
		if err != nil {
			return nil, err
		}
		if name == nil {
			continue // none is needed
		}
		claim, err := p.claims.Cached(pod.Namespace, *name)
		if err != nil {
			return nil, errors.New(plugin.NotFound("resourceclaim.resource.k8s.io", *name))
		}
		claim = p.overlay(claim)
		if claim.DeletionTimestamp != nil {
			return nil, fmt.Errorf("resourceclaim %q is being deleted", claim.Name)
		}
		if mustCheckOwner {
			if err := resourceclaim.IsForPod(pod, claim, false); err != nil {
				return nil, err
			}
		}
		out = append(out, claim)
	}
	return out, nil
}

func (p *Plugin) overlay(claim *resourcev1.ResourceClaim) *resourcev1.ResourceClaim {
	key := claim.Namespace + "/" + claim.Name
	if a, ok := p.assumed[key]; ok {
		if a.base == claim.ResourceVersion {
			return a.claim
		}
		delete(p.assumed, key)
	}
	return claim
}

// PreEnqueue implements plugin.PreEnqueuer.
func (p *Plugin) PreEnqueue(pod *corev1.Pod) *plugin.Status {
	if len(pod.Spec.ResourceClaims) == 0 {
		return nil
	}
	if _, err := p.podClaims(pod); err != nil {
		return plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, err.Error())
	}
	return nil
}

// Filter implements plugin.Filterer.
func (p *Plugin) Filter(ctx context.Context, c *plugin.Cycle) (plugin.Filter, *plugin.Status) {
	pod := c.Pod.Object
	unresolvable := func(format string, args ...any) (plugin.Filter, *plugin.Status) {
		return plugin.Filter{}, plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, fmt.Sprintf(format, args...))
	}
	if len(pod.Spec.ResourceClaims) == 0 {
		return plugin.Filter{}, nil
	}
	st := &state{results: map[string][]resourcev1.AllocationResult{}, refused: map[types.UID]struct{}{}}
	c.Put(Name, st)
	claims, err := p.podClaims(pod)
	if err != nil {
		return unresolvable("%s", err.Error())
	}
	st.claims = claims
	if len(claims) == 0 {
		return plugin.Filter{}, nil
	}
	type located struct {
		uid      types.UID
		selector *nodeaffinity.NodeSelector
	}
	var where []located
	for _, claim := range claims {
		if claim.Status.Allocation == nil {
			st.pending = append(st.pending, claim)
			if name := p.missingClass(claim); name != "" {
				return unresolvable("%s", name)
			}
			continue
		}
		if !resourceclaim.CanBeReserved(claim) && !resourceclaim.IsReservedForPod(pod, claim, false) {
			return unresolvable("resourceclaim in use")
		}
		if s := claim.Status.Allocation.NodeSelector; s != nil {
			parsed, err := nodeaffinity.NewNodeSelector(s)
			if err != nil {
				return plugin.Filter{}, plugin.AsStatus(Name, err)
			}
			where = append(where, located{claim.UID, parsed})
		}
	}
	var allocator structured.Allocator
	if len(st.pending) > 0 {
		if allocator, err = p.allocator(ctx); err != nil {
			return plugin.Filter{}, plugin.AsStatus(Name, err)
		}
	}
	return plugin.Filter{Node: func(n *snapshot.Node) *plugin.Status {
		fits := true
		for _, claim := range claims {
			if p.lost(claim) {
				st.refused[claim.UID] = struct{}{}
				fits = false
			}
		}
		for _, l := range where {
			if !l.selector.Match(n.Object) {
				st.refused[l.uid] = struct{}{}
				fits = false
			}
		}
		if !fits {
			return p.elsewhere
		}
		if allocator == nil {
			return nil
		}
		limited, cancel := ctx, context.CancelFunc(func() {})
		if p.timeout > 0 {
			limited, cancel = context.WithTimeout(ctx, p.timeout)
		}
		defer cancel()
		result, err := allocator.Allocate(limited, n.Object, st.pending)
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return p.slow
		case err != nil && errors.Is(err, structured.ErrFailedAllocationOnNode):
			return plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, err.Error())
		case err != nil:
			return plugin.AsStatus(Name, err)
		case result == nil:
			return p.exhausted
		}
		st.results[n.Name] = result
		return nil
	}}, nil
}

// missingClass says which device class of a claim does not exist.
func (p *Plugin) missingClass(claim *resourcev1.ResourceClaim) string {
	check := func(request, class string) string {
		if _, err := p.classes.Cached("", class); err != nil {
			return fmt.Sprintf("request %s: device class %s does not exist", request, class)
		}
		return ""
	}
	for i := range claim.Spec.Devices.Requests {
		r := &claim.Spec.Devices.Requests[i]
		if r.Exactly != nil {
			if why := check(r.Name, r.Exactly.DeviceClassName); why != "" {
				return why
			}
		}
		for _, sub := range r.FirstAvailable {
			if why := check(r.Name+"/"+sub.Name, sub.DeviceClassName); why != "" {
				return why
			}
		}
	}
	return ""
}

// allocator knows all devices and which of them are taken or promised.
func (p *Plugin) allocator(ctx context.Context) (structured.Allocator, error) {
	if p.cache == nil {
		p.cache = cel.NewCache(celCacheSize, cel.Features{EnableConsumableCapacity: true})
	}
	taken := structured.AllocatedState{
		AllocatedDevices:         sets.New[structured.DeviceID](),
		AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
		AggregatedCapacity:       structured.NewConsumedCapacityCollection(),
	}
	for _, claim := range p.claims.CachedList("", nil) {
		claim = p.overlay(claim)
		if claim.Status.Allocation == nil {
			continue
		}
		for i := range claim.Status.Allocation.Devices.Results {
			r := &claim.Status.Allocation.Devices.Results[i]
			if ptr.Deref(r.AdminAccess, false) {
				continue // watching a device does not take it
			}
			id := structured.MakeDeviceID(r.Driver, r.Pool, r.Device)
			if r.ShareID == nil {
				taken.AllocatedDevices.Insert(id)
				continue
			}
			taken.AllocatedSharedDeviceIDs.Insert(structured.MakeSharedDeviceID(id, r.ShareID))
			taken.AggregatedCapacity.Insert(structured.NewDeviceConsumedCapacity(id, r.ConsumedCapacity))
		}
	}
	features := structured.Features{AdminAccess: true, ConsumableCapacity: true, DeviceBindingAndStatus: true, DeviceTaints: true,
		FractionalCapacityRange: true, PartitionableDevices: true, PrioritizedList: true}
	return structured.NewAllocator(ctx, features, taken, classLister{p.classes}, p.slices.CachedList("", nil), p.cache)
}

// classLister lists device classes from the informer.
type classLister struct {
	classes client.Typed[*resourcev1.DeviceClass]
}

// List implements structured.DeviceClassLister.
func (l classLister) List() ([]*resourcev1.DeviceClass, error) {
	return l.classes.CachedList("", nil), nil
}

// Get implements structured.DeviceClassLister.
func (l classLister) Get(name string) (*resourcev1.DeviceClass, error) {
	return l.classes.Cached("", name)
}

// Events implements plugin.Eventer.
func (p *Plugin) Events() []plugin.EventHint {
	return []plugin.EventHint{
		{Event: plugin.Event{Resource: plugin.Node, Action: plugin.Add | plugin.UpdateNodeLabel}},
		{Event: plugin.Event{Resource: plugin.ResourceClaim, Action: plugin.Add | plugin.Update | plugin.Delete}, Worth: p.claimHelps},
		{Event: plugin.Event{Resource: plugin.TargetPod, Action: plugin.UpdatePodGeneratedResourceClaim}},
		{Event: plugin.Event{Resource: plugin.DeviceClass, Action: plugin.Add | plugin.Update}},
		{Event: plugin.Event{Resource: plugin.ResourceSlice, Action: plugin.Add | plugin.Update}},
	}
}

// claimHelps says whether a claim is the pod's own, or freed devices.
func (p *Plugin) claimHelps(pod *corev1.Pod, before, after any) bool {
	was, _ := before.(*resourcev1.ResourceClaim)
	is, _ := after.(*resourcev1.ResourceClaim)
	if was != nil && was.Status.Allocation != nil && (is == nil || is.Status.Allocation == nil) {
		return true
	}
	if is == nil || is.Namespace != pod.Namespace {
		return false
	}
	return slices.ContainsFunc(pod.Spec.ResourceClaims, func(c corev1.PodResourceClaim) bool {
		name, _, err := resourceclaim.Name(pod, &c)
		return err == nil && name != nil && *name == is.Name
	})
}
