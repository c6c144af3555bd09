// SPDX-License-Identifier: Apache-2.0

package endpointslice

import (
	"context"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/endpointslice/topologycache"
	"k8s.io/utils/ptr"

	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
)

// DefaultMax is how many endpoints a slice holds when nothing else is said.
const DefaultMax = 100

// planned is one slice as it shall be; have is nil for a new one.
type planned struct {
	have      *discoveryv1.EndpointSlice
	family    discoveryv1.AddressType
	ports     []discoveryv1.EndpointPort
	endpoints []discoveryv1.Endpoint
	// written says that it changes anyway.
	written bool
}

type changes struct {
	keep []*planned
	drop []*discoveryv1.EndpointSlice
	// former are dropped and never used for others.
	former []*discoveryv1.EndpointSlice
}

// plan distributes the endpoints of groups over slices so that few of the
// present ones change: an endpoint stays where it is, new ones fill up the slices
// that change anyway, and what is left goes into the one other slice that it
// fills best, or into new ones. A slice to be dropped is used for a new one of its
// family.
// Slices of a former Service of the same name are dropped: they go with it.
func plan(svc *corev1.Service, maxEndpoints int, groups []*group, have []*discoveryv1.EndpointSlice) changes {
	have = slices.Clone(have)
	slices.SortFunc(have, func(a, b *discoveryv1.EndpointSlice) int { return strings.Compare(a.Name, b.Name) })
	var out changes
	have = slices.DeleteFunc(have, func(s *discoveryv1.EndpointSlice) bool {
		foreign := !slices.ContainsFunc(s.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == svc.UID && r.Kind == kind.Kind })
		if foreign && s.DeletionTimestamp == nil {
			out.former = append(out.former, s)
		}
		return foreign
	})
	used, labels := map[*discoveryv1.EndpointSlice]bool{}, labelsOf(svc)
	for _, g := range groups {
		missing := map[string]discoveryv1.Endpoint{}
		for _, e := range g.endpoints {
			missing[endpointID(&e)] = e
		}
		id := portsID(g.ports)
		var mine []*planned
		for _, s := range have {
			if used[s] || s.DeletionTimestamp != nil || s.AddressType != g.family || portsID(s.Ports) != id {
				continue
			}
			p := &planned{have: s, family: g.family, ports: g.ports}
			for i := range s.Endpoints {
				k := endpointID(&s.Endpoints[i])
				if e, ok := missing[k]; ok && len(p.endpoints) < maxEndpoints {
					p.endpoints = append(p.endpoints, e)
					delete(missing, k)
				}
			}
			p.written = !equality.Semantic.DeepEqual(s.Labels, labels) || !same(svc, s.Endpoints, p.endpoints)
			mine, used[s] = append(mine, p), true
		}
		var rest []discoveryv1.Endpoint
		for i := range g.endpoints {
			if _, ok := missing[endpointID(&g.endpoints[i])]; ok {
				rest = append(rest, g.endpoints[i])
			}
		}
		mine = place(g, mine, rest, maxEndpoints)
		if len(g.endpoints) == 0 && len(mine) == 0 {
			mine = append(mine, &planned{family: g.family, ports: g.ports})
		}
		for i, p := range mine {
			if len(p.endpoints) == 0 && (len(g.endpoints) > 0 || i > 0) {
				used[p.have] = false
				continue
			}
			out.keep = append(out.keep, p)
		}
	}
	for _, s := range have {
		if !used[s] && s.DeletionTimestamp == nil {
			out.drop = append(out.drop, s)
		}
	}
	for _, p := range out.keep {
		if p.have != nil {
			continue
		}
		if i := slices.IndexFunc(out.drop, func(s *discoveryv1.EndpointSlice) bool { return s.AddressType == p.family }); i >= 0 {
			p.have = out.drop[i]
			out.drop = slices.Delete(out.drop, i, i+1)
		}
	}
	return out
}

// place puts the rest of a group's endpoints into its slices.
func place(g *group, mine []*planned, rest []discoveryv1.Endpoint, maxEndpoints int) []*planned {
	put := func(p *planned) {
		n := min(maxEndpoints-len(p.endpoints), len(rest))
		p.endpoints, rest = append(p.endpoints, rest[:n]...), rest[n:]
	}
	for _, p := range mine {
		if p.written && len(p.endpoints) > 0 {
			put(p)
		}
	}
	for len(rest) > 0 {
		var best *planned
		for _, p := range mine {
			fits := !p.written && len(p.endpoints)+len(rest) <= maxEndpoints && len(rest) < maxEndpoints
			if fits && (best == nil || len(p.endpoints) > len(best.endpoints)) {
				best = p
			}
		}
		if best == nil {
			best = &planned{family: g.family, ports: g.ports}
			mine = append(mine, best)
		}
		best.written = true
		put(best)
	}
	return mine
}

// endpointID says which pod and addresses an endpoint is of.
func endpointID(e *discoveryv1.Endpoint) string {
	id := strings.Join(e.Addresses, ",")
	if e.TargetRef != nil {
		id += "/" + string(e.TargetRef.UID)
	}
	return id
}

func labelsOf(svc *corev1.Service) map[string]string {
	out := maps.Clone(svc.Labels)
	if out == nil {
		out = map[string]string{}
	}
	delete(out, corev1.IsHeadlessService)
	if svc.Spec.ClusterIP == "" || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		out[corev1.IsHeadlessService] = ""
	}
	out[discoveryv1.LabelServiceName] = svc.Name
	out[discoveryv1.LabelManagedBy] = managedBy
	return out
}

// write makes the slices as planned. trigger is when the oldest change behind
// it happened, "" if that is unknown.
func (c *Controller) write(ctx context.Context, key queue.Key, svc *corev1.Service, p changes, trigger string) error {
	var create, update []*discoveryv1.EndpointSlice
	for _, info := range c.sorted(svc, p) {
		c.spread(ctx, svc, info)
		create, update = append(create, info.ToCreate...), append(update, info.ToUpdate...)
	}
	for _, s := range append(slices.Clip(update), create...) {
		if trigger == "" {
			delete(s.Annotations, corev1.EndpointsLastChangeTriggerTime)
		} else {
			metav1.SetMetaDataAnnotation(&s.ObjectMeta, corev1.EndpointsLastChangeTriggerTime, trigger)
		}
	}
	for _, s := range update {
		if _, err := c.slices.Update(ctx, s); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		meter.From(ctx).SliceChanged("update")
	}
	for _, s := range create {
		if err := c.create(ctx, key, s); err != nil {
			if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				return nil
			}
			return err
		}
	}
	for _, s := range append(p.drop, p.former...) {
		if err := c.slices.Delete(ctx, s.Namespace, s.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		meter.From(ctx).SliceChanged("delete")
	}
	meter.From(ctx).SlicesOf(key.String(), c.tally(svc, p, len(create)+len(update)+len(p.drop)))
	return nil
}

// tally counts what a plan comes to.
func (c *Controller) tally(svc *corev1.Service, p changes, changed int) *meter.Slices {
	out := &meter.Slices{Slices: len(p.keep), Changed: changed, Topology: "Disabled", Distribution: ptr.Deref(svc.Spec.TrafficDistribution, "")}
	if spreads(svc) {
		out.Topology = "Auto"
	}
	had, groups := map[string]bool{}, map[string]int{}
	note := func(s *discoveryv1.EndpointSlice) {
		for i := range s.Endpoints {
			had[portsID(s.Ports)+endpointID(&s.Endpoints[i])] = true
		}
	}
	for _, want := range p.keep {
		if want.have != nil {
			note(want.have)
		}
	}
	for _, s := range p.drop {
		note(s)
	}
	for _, want := range p.keep {
		id := portsID(want.ports)
		for i := range want.endpoints {
			if key := id + endpointID(&want.endpoints[i]); had[key] {
				delete(had, key)
			} else {
				out.Added++
			}
		}
		groups[string(want.family)+id] += len(want.endpoints)
	}
	out.Removed = len(had)
	for _, n := range groups {
		out.Endpoints += n
		out.Least += max(1, (n+c.max-1)/c.max)
	}
	return out
}

// sorted shapes the slices that are kept, by family: new ones, changed ones, and
// those that are as they shall be.
func (c *Controller) sorted(svc *corev1.Service, p changes) []*topologycache.SliceInfo {
	labels := labelsOf(svc)
	var out []*topologycache.SliceInfo
	for _, want := range p.keep {
		i := slices.IndexFunc(out, func(info *topologycache.SliceInfo) bool { return info.AddressType == want.family })
		if i < 0 {
			i = len(out)
			out = append(out, &topologycache.SliceInfo{ServiceKey: svc.Namespace + "/" + svc.Name, AddressType: want.family})
		}
		info := out[i]
		s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, GenerateName: svc.Name + "-",
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(svc, kind)}}, AddressType: want.family}
		to := &info.ToCreate
		if want.have != nil {
			if equality.Semantic.DeepEqual(want.have.Labels, labels) && portsID(want.have.Ports) == portsID(want.ports) && same(svc, want.have.Endpoints, want.endpoints) {
				info.Unchanged = append(info.Unchanged, want.have)
				continue
			}
			s, to = want.have.DeepCopy(), &info.ToUpdate
		}
		s.Labels, s.Ports, s.Endpoints = labels, want.ports, want.endpoints
		if s.Endpoints == nil {
			s.Endpoints = []discoveryv1.Endpoint{}
		}
		*to = append(*to, s)
	}
	return out
}

// create makes a slice and remembers it until the informer shows it.
func (c *Controller) create(ctx context.Context, key queue.Key, s *discoveryv1.EndpointSlice) error {
	made, err := c.slices.Create(ctx, s)
	if err != nil {
		return err
	}
	meter.From(ctx).SliceChanged("create")
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.slices.Cached(made.Namespace, made.Name); err == nil {
		return nil
	}
	if c.created[key] == nil {
		c.created[key] = map[string]bool{}
	}
	c.created[key][made.Name] = true
	return nil
}
