// SPDX-License-Identifier: Apache-2.0

// Package volumebinding is the plugin VolumeBinding: a pod goes where its
// volumes are or can be. Claims that wait for their first consumer are bound
// to volumes, or handed to their provisioner, for the node that was chosen.
package volumebinding

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/component-helpers/storage/ephemeral"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Name is the plugin's name.
const Name = "VolumeBinding"

// Why a node does not do, in upstream's words.
const (
	bindConflict   = "node(s) didn't find available persistent volumes to bind"
	nodeConflict   = "node(s) didn't match PersistentVolume's node affinity"
	notEnoughSpace = "node(s) did not have enough free storage"
	volumeMissing  = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
)

const byClass = "scheduler/volumes-by-class"

// Plugin implements Filter, Reserve and PreBind.
type Plugin struct {
	claims     client.Typed[*corev1.PersistentVolumeClaim]
	volumes    client.Typed[*corev1.PersistentVolume]
	classes    client.Typed[*storagev1.StorageClass]
	drivers    client.Typed[*storagev1.CSIDriver]
	capacities client.Typed[*storagev1.CSIStorageCapacity]
	timeout    time.Duration

	promises *Promises
	refusals map[string]*plugin.Status
}

// Promises are what Reserve promised and the informers do not show yet. The
// profiles of a scheduler have them in common, so that no two of them give the
// same volume away. Like the plugin, they belong to the scheduling loop.
type Promises struct {
	volumes map[string]assumed[*corev1.PersistentVolume]      // by name
	claims  map[string]assumed[*corev1.PersistentVolumeClaim] // by namespace/name
}

// NewPromises returns none.
func NewPromises() *Promises {
	return &Promises{volumes: map[string]assumed[*corev1.PersistentVolume]{}, claims: map[string]assumed[*corev1.PersistentVolumeClaim]{}}
}

// assumed holds as long as the informer's object is the one it was made from.
type assumed[T client.Object] struct {
	obj  T
	base string // resourceVersion it was made from
}

// New returns the plugin.
func New(c client.Interface, args *configv1.VolumeBindingArgs, promises *Promises) *Plugin {
	p := &Plugin{
		claims: client.For[*corev1.PersistentVolumeClaim](c), volumes: client.For[*corev1.PersistentVolume](c),
		classes: client.For[*storagev1.StorageClass](c), drivers: client.For[*storagev1.CSIDriver](c),
		capacities: client.For[*storagev1.CSIStorageCapacity](c), timeout: time.Duration(ptr.Deref(args.BindTimeoutSeconds, 600)) * time.Second,
		promises: promises, refusals: map[string]*plugin.Status{},
	}
	p.claims.Informer()
	p.classes.Informer()
	p.drivers.Informer()
	p.capacities.Informer()
	p.volumes.AddIndex(byClass, func(pv *corev1.PersistentVolume) []string {
		return []string{storagehelpers.GetPersistentVolumeClass(pv)}
	})
	return p
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// Sign implements plugin.Signer: only pods without claims share.
func (p *Plugin) Sign(c *plugin.Cycle, key []byte) ([]byte, bool) {
	return key, len(c.Pod.Claims) == 0
}

// plan is what has to be done for a pod on one node.
type plan struct {
	bindings   []binding
	provisions []*corev1.PersistentVolumeClaim
}

type binding struct {
	claim  *corev1.PersistentVolumeClaim
	volume *corev1.PersistentVolume
}

func (pl *plan) empty() bool { return len(pl.bindings)+len(pl.provisions) == 0 }

// state goes from Filter to PreBind.
type state struct {
	plans map[string]*plan
	// chosen is what Reserve assumed, with claimRef and selected node set.
	chosen *plan
	claims []string // keys of all claims of the pod that must be bound
}

// Filter implements plugin.Filterer.
func (p *Plugin) Filter(_ context.Context, c *plugin.Cycle) (plugin.Filter, *plugin.Status) {
	pod := c.Pod.Object
	unresolvable := func(format string, args ...any) (plugin.Filter, *plugin.Status) {
		return plugin.Filter{}, plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, fmt.Sprintf(format, args...))
	}
	var bound, delayed []*corev1.PersistentVolumeClaim
	immediate := false
	st := &state{plans: map[string]*plan{}}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		name, made := plugin.ClaimName(pod, v)
		if name == "" {
			continue
		}
		pvc := p.claim(pod.Namespace, name)
		switch {
		case pvc == nil && made:
			return unresolvable("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name)
		case pvc == nil:
			return unresolvable("%s", plugin.NotFound("persistentvolumeclaim", name))
		case pvc.Status.Phase == corev1.ClaimLost:
			return unresolvable("persistentvolumeclaim %q bound to non-existent persistentvolume %q", pvc.Name, pvc.Spec.VolumeName)
		case pvc.DeletionTimestamp != nil:
			return unresolvable("persistentvolumeclaim %q is being deleted", pvc.Name)
		}
		if made {
			if err := ephemeral.VolumeIsForPod(pod, pvc); err != nil {
				return unresolvable("%s", err.Error())
			}
		}
		st.claims = append(st.claims, pod.Namespace+"/"+name)
		switch {
		case fullyBound(pvc):
			bound = append(bound, pvc)
		case pvc.Spec.VolumeName == "" && p.waitsForConsumer(pvc):
			delayed = append(delayed, pvc)
		default:
			immediate = true
		}
	}
	if immediate {
		return unresolvable("pod has unbound immediate PersistentVolumeClaims")
	}
	if len(bound)+len(delayed) == 0 {
		return plugin.Filter{}, nil
	}
	// The smallest claims choose first, so that they leave the large volumes.
	slices.SortStableFunc(delayed, func(a, b *corev1.PersistentVolumeClaim) int {
		x, y := a.Spec.Resources.Requests[corev1.ResourceStorage], b.Spec.Resources.Requests[corev1.ResourceStorage]
		return x.Cmp(y)
	})
	c.Put(Name, st)
	return plugin.Filter{Node: func(n *snapshot.Node) *plugin.Status {
		var reasons []string
		pl := &plan{}
		if why := p.match(n.Object, delayed, pl); why != "" {
			reasons = append(reasons, why)
		}
		reasons = append(reasons, p.checkBound(n.Object, bound)...)
		if len(reasons) > 0 {
			return p.refuse(reasons)
		}
		st.plans[n.Name] = pl
		return nil
	}}, nil
}

func (p *Plugin) refuse(reasons []string) *plugin.Status {
	key := fmt.Sprint(reasons)
	if p.refusals[key] == nil {
		p.refusals[key] = plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, reasons...)
	}
	return p.refusals[key]
}

func fullyBound(pvc *corev1.PersistentVolumeClaim) bool {
	_, done := pvc.Annotations[storagehelpers.AnnBindCompleted]
	return pvc.Spec.VolumeName != "" && done
}

func (p *Plugin) waitsForConsumer(pvc *corev1.PersistentVolumeClaim) bool {
	sc, err := p.classes.Cached("", storagehelpers.GetPersistentVolumeClaimClass(pvc))
	return err == nil && sc.VolumeBindingMode != nil && *sc.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// checkBound says why bound volumes cannot be used on the node.
func (p *Plugin) checkBound(node *corev1.Node, claims []*corev1.PersistentVolumeClaim) []string {
	conflict, missing := false, false
	for _, pvc := range claims {
		pv := p.volume(pvc.Spec.VolumeName)
		switch {
		case pv == nil:
			missing = true
		case storagehelpers.CheckNodeAffinity(pv, node.Labels) != nil:
			conflict = true
		}
	}
	var reasons []string
	if conflict {
		reasons = append(reasons, nodeConflict)
	}
	if missing {
		reasons = append(reasons, volumeMissing)
	}
	return reasons
}

// match finds a volume on the node, or a provisioner for it, for every claim,
// and says why there is none.
func (p *Plugin) match(node *corev1.Node, claims []*corev1.PersistentVolumeClaim, pl *plan) string {
	chosen := map[string]*corev1.PersistentVolume{}
	for _, pvc := range claims {
		if selected, ok := pvc.Annotations[storagehelpers.AnnSelectedNode]; ok {
			if selected != node.Name {
				return bindConflict
			}
			if why := p.provisionable(node, pvc); why != "" {
				return why
			}
			pl.provisions = append(pl.provisions, pvc)
			continue
		}
		pv, err := storagehelpers.FindMatchingVolume(pvc, p.ofClass(storagehelpers.GetPersistentVolumeClaimClass(pvc)), node, chosen, true, true)
		if err != nil {
			return bindConflict
		}
		if pv != nil {
			chosen[pv.Name] = pv
			pl.bindings = append(pl.bindings, binding{pvc, pv})
			continue
		}
		if why := p.provisionable(node, pvc); why != "" {
			return why
		}
		pl.provisions = append(pl.provisions, pvc)
	}
	return ""
}

// ofClass returns the volumes of a class as they will be.
func (p *Plugin) ofClass(class string) []*corev1.PersistentVolume {
	list := p.volumes.ByIndex(byClass, class)
	if len(p.promises.volumes) > 0 {
		for i, pv := range list {
			list[i] = p.overlay(pv)
		}
	}
	return list
}

func (p *Plugin) overlay(pv *corev1.PersistentVolume) *corev1.PersistentVolume {
	if a, ok := p.promises.volumes[pv.Name]; ok {
		if a.base == pv.ResourceVersion {
			return a.obj
		}
		delete(p.promises.volumes, pv.Name)
	}
	return pv
}

func (p *Plugin) volume(name string) *corev1.PersistentVolume {
	pv, err := p.volumes.Cached("", name)
	if err != nil {
		return nil
	}
	return p.overlay(pv)
}

func (p *Plugin) claim(namespace, name string) *corev1.PersistentVolumeClaim {
	pvc, err := p.claims.Cached(namespace, name)
	if err != nil {
		return nil
	}
	key := namespace + "/" + name
	if a, ok := p.promises.claims[key]; ok {
		if a.base == pvc.ResourceVersion {
			return a.obj
		}
		delete(p.promises.claims, key)
	}
	return pvc
}

// provisionable says why no volume can be made for the claim on the node.
func (p *Plugin) provisionable(node *corev1.Node, pvc *corev1.PersistentVolumeClaim) string {
	class, err := p.classes.Cached("", storagehelpers.GetPersistentVolumeClaimClass(pvc))
	if err != nil || class.Provisioner == "" || class.Provisioner == "kubernetes.io/no-provisioner" {
		return bindConflict
	}
	if !topologyAllows(class.AllowedTopologies, node.Labels) {
		return bindConflict
	}
	if !p.hasCapacity(class, pvc, node) {
		return notEnoughSpace
	}
	return ""
}

// topologyAllows says whether the labels match one of the terms; none allow all.
func topologyAllows(terms []corev1.TopologySelectorTerm, labels map[string]string) bool {
	if len(terms) == 0 {
		return true
	}
	return slices.ContainsFunc(terms, func(t corev1.TopologySelectorTerm) bool {
		for _, e := range t.MatchLabelExpressions {
			if v, ok := labels[e.Key]; !ok || !slices.Contains(e.Values, v) {
				return false
			}
		}
		return len(t.MatchLabelExpressions) > 0
	})
}

// Events implements plugin.Eventer.
func (p *Plugin) Events() []plugin.EventHint {
	changed := plugin.Add | plugin.Update
	return []plugin.EventHint{
		{Event: plugin.Event{Resource: plugin.StorageClass, Action: changed}},
		{Event: plugin.Event{Resource: plugin.PersistentVolumeClaim, Action: changed}, Worth: func(pod *corev1.Pod, _, after any) bool {
			pvc, ok := after.(*corev1.PersistentVolumeClaim)
			return !ok || plugin.UsesClaim(pod, pvc)
		}},
		{Event: plugin.Event{Resource: plugin.PersistentVolume, Action: changed}},
		{Event: plugin.Event{Resource: plugin.Node, Action: plugin.Add | plugin.UpdateNodeLabel}},
		{Event: plugin.Event{Resource: plugin.CSINode, Action: changed}},
		{Event: plugin.Event{Resource: plugin.CSIDriver, Action: plugin.Update}},
		{Event: plugin.Event{Resource: plugin.CSIStorageCapacity, Action: changed}},
	}
}
