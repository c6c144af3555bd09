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
	rules   client.Typed[*resourcev1.DeviceTaintRule]
	pods    client.Typed[*corev1.Pod]
	timeout time.Duration
	// bindingTimeout bounds the wait for devices to be attached.
	bindingTimeout time.Duration
	cache          *cel.Cache // made when the first pod claims something

	promises *Promises

	elsewhere, exhausted, left *plugin.Status
}

// Promises are what was reserved and is not written yet. All profiles of a
// scheduler share one value: they allocate the same devices.
type Promises struct {
	// assumed are claims as Reserve promised them, by key; each holds as long
	// as the informer's object is the one it was made from.
	assumed map[string]assumed
	// extended are claims for extended resources, by the UID of their pod.
	extended map[types.UID]*promise
}

// NewPromises returns a value without promises.
func NewPromises() *Promises {
	return &Promises{assumed: map[string]assumed{}, extended: map[types.UID]*promise{}}
}

type assumed struct {
	claim *resourcev1.ResourceClaim
	base  string
}

// New returns the plugin.
func New(h plugin.Handle, promises *Promises, args *configv1.DynamicResourcesArgs) *Plugin {
	c := h.Client()
	p := &Plugin{
		h: h, claims: client.For[*resourcev1.ResourceClaim](c), classes: client.For[*resourcev1.DeviceClass](c),
		slices: client.For[*resourcev1.ResourceSlice](c), rules: client.For[*resourcev1.DeviceTaintRule](c), pods: client.For[*corev1.Pod](c),
		promises: promises,
		timeout:  ptr.Deref(args.FilterTimeout, metav1.Duration{}).Duration,

		bindingTimeout: ptr.Deref(args.BindingTimeout, metav1.Duration{Duration: configv1.DynamicResourcesBindingTimeoutDefault}).Duration,

		elsewhere: plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "resourceclaim not available on the node"),
		exhausted: plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "cannot allocate all claims"),
		left:      plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "cannot schedule extended resource claim"),
	}
	p.claims.Informer()
	p.classes.Informer()
	p.slices.Informer()
	p.rules.Informer()
	return p
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// Sign implements plugin.Signer: only pods without claims share.
func (p *Plugin) Sign(c *plugin.Cycle, key []byte) ([]byte, bool) {
	return key, len(c.Pod.Object.Spec.ResourceClaims) == 0 && !plugin.RequestsDevices(c.Snapshot, c.Pod, p.classes)
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
	// special is about extended resources, nil when the pod needs no devices for them.
	special *special
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
	if a, ok := p.promises.assumed[key]; ok {
		if a.base == claim.ResourceVersion {
			return a.claim
		}
		delete(p.promises.assumed, key)
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
	extended := p.special(c)
	if len(pod.Spec.ResourceClaims) == 0 && extended == nil {
		return plugin.Filter{}, nil
	}
	st := &state{results: map[string][]resourcev1.AllocationResult{}, refused: map[types.UID]struct{}{}, special: extended}
	c.Put(Name, st)
	claims, err := p.podClaims(pod)
	if err != nil {
		return unresolvable("%s", err.Error())
	}
	st.claims = claims
	if len(claims) == 0 && extended == nil {
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
	if len(st.pending) > 0 || extended != nil {
		if allocator, err = p.allocator(ctx); err != nil {
			return plugin.Filter{}, plugin.AsStatus(Name, err)
		}
	}
	return plugin.Filter{Node: func(n *snapshot.Node) *plugin.Status {
		need := st.pending
		if extended != nil {
			if extended.stale != nil {
				return p.left
			}
			delete(extended.nodes, n.Name)
			nc, devices, refusal := p.on(extended, n)
			if refusal != nil {
				return refusal
			}
			if devices {
				nc.result = len(need)
				need = append(slices.Clone(need), nc.claim)
				extended.nodes[n.Name] = nc
			} else if len(claims) == 0 {
				return nil
			}
		}
		if allocator != nil && len(need) > 0 {
			if refusal := p.allocate(ctx, allocator, st, n, need); refusal != nil {
				return refusal
			}
		}
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
		return nil
	}}, nil
}

// allocate finds devices of the node for claims, and keeps what it found.
func (p *Plugin) allocate(ctx context.Context, allocator structured.Allocator, st *state, n *snapshot.Node, need []*resourcev1.ResourceClaim) *plugin.Status {
	if p.timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, p.timeout)
		defer cancel()
		ctx = limited
	}
	result, err := allocator.Allocate(ctx, n.Object, need)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return plugin.AsStatus(Name, fmt.Errorf("node %s: timed out trying to allocate devices", n.Name))
	case errors.Is(err, structured.ErrFailedAllocationOnNode):
		return plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, err.Error())
	case err != nil:
		return plugin.AsStatus(Name, err)
	case len(result) != len(need):
		return p.exhausted
	}
	st.results[n.Name] = result
	return nil
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
	take := func(claim *resourcev1.ResourceClaim) {
		if claim.Status.Allocation == nil {
			return
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
	for _, claim := range p.claims.CachedList("", nil) {
		take(p.overlay(claim))
	}
	p.promised(take)
	features := structured.Features{AdminAccess: true, ConsumableCapacity: true, DeviceBindingAndStatus: true, DeviceTaints: true,
		FractionalCapacityRange: true, PartitionableDevices: true, PrioritizedList: true}
	return structured.NewAllocator(ctx, features, taken, classLister{p.classes}, tainted(p.slices.CachedList("", nil), p.rules.CachedList("", nil)), p.cache)
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
