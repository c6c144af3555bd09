// SPDX-License-Identifier: Apache-2.0

package volumebinding

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	storagehelpers "k8s.io/component-helpers/storage/volume"

	"kaji/internal/scheduler/plugin"
)

// Reserve implements plugin.Reserver: what the plan of the node says counts as
// done for the pods to come.
func (p *Plugin) Reserve(_ context.Context, c *plugin.Cycle, nodeName string) *plugin.Status {
	st, _ := c.State[Name].(*state)
	if st == nil || st.plans[nodeName] == nil {
		return nil
	}
	st.chosen = &plan{}
	for _, b := range st.plans[nodeName].bindings {
		pv, dirty, err := storagehelpers.GetBindVolumeToClaim(b.volume, b.claim)
		if err != nil {
			p.Unreserve(context.Background(), c, nodeName)
			return plugin.AsStatus(Name, err)
		}
		if dirty {
			p.promises.volumes[pv.Name] = assumed[*corev1.PersistentVolume]{pv, b.volume.ResourceVersion}
		}
		st.chosen.bindings = append(st.chosen.bindings, binding{b.claim, pv})
	}
	for _, claim := range st.plans[nodeName].provisions {
		pvc := claim.DeepCopy()
		metav1.SetMetaDataAnnotation(&pvc.ObjectMeta, storagehelpers.AnnSelectedNode, nodeName)
		p.promises.claims[pvc.Namespace+"/"+pvc.Name] = assumed[*corev1.PersistentVolumeClaim]{pvc, claim.ResourceVersion}
		st.chosen.provisions = append(st.chosen.provisions, pvc)
	}
	st.plans = nil
	return nil
}

// Unreserve implements plugin.Reserver.
func (p *Plugin) Unreserve(_ context.Context, c *plugin.Cycle, _ string) {
	st, _ := c.State[Name].(*state)
	if st == nil || st.chosen == nil {
		return
	}
	for _, b := range st.chosen.bindings {
		if p.promises.volumes[b.volume.Name].obj == b.volume {
			delete(p.promises.volumes, b.volume.Name)
		}
	}
	for _, pvc := range st.chosen.provisions {
		if key := pvc.Namespace + "/" + pvc.Name; p.promises.claims[key].obj == pvc {
			delete(p.promises.claims, key)
		}
	}
}

// WillPreBind implements plugin.PreBinder.
func (p *Plugin) WillPreBind(c *plugin.Cycle) bool {
	st, _ := c.State[Name].(*state)
	return st != nil && st.chosen != nil && !st.chosen.empty()
}

// PreBind implements plugin.PreBinder: it writes the bindings and waits until
// the volume controller and the provisioners have done their part.
func (p *Plugin) PreBind(ctx context.Context, c *plugin.Cycle, nodeName string) *plugin.Status {
	st := c.State[Name].(*state)
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	for _, b := range st.chosen.bindings {
		if _, err := p.volumes.Update(ctx, b.volume); err != nil {
			return plugin.AsStatus(Name, fmt.Errorf("binding volumes: %w", err))
		}
	}
	for _, pvc := range st.chosen.provisions {
		if _, err := p.claims.Update(ctx, pvc); err != nil {
			return plugin.AsStatus(Name, fmt.Errorf("binding volumes: %w", err))
		}
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		done, err := p.settled(st, nodeName)
		if err != nil {
			return plugin.AsStatus(Name, fmt.Errorf("binding volumes: %w", err))
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return plugin.AsStatus(Name, fmt.Errorf("binding volumes: %w", ctx.Err()))
		case <-tick.C:
		}
	}
}

// pollEvery is how often the informers are looked at while volumes are bound.
const pollEvery = 200 * time.Millisecond

// settled says whether all claims of the pod are bound. It runs beside the
// loop and looks at the informers only.
func (p *Plugin) settled(st *state, nodeName string) (bool, error) {
	for _, key := range st.claims {
		namespace, name, _ := strings.Cut(key, "/")
		pvc, err := p.claims.Cached(namespace, name)
		if apierrors.IsNotFound(err) {
			return false, fmt.Errorf("pvc %q was deleted", key)
		}
		if fullyBound(pvc) {
			if _, err := p.volumes.Cached("", pvc.Spec.VolumeName); err != nil {
				return false, nil // the informer has not seen it yet
			}
			continue
		}
		for _, provisioned := range st.chosen.provisions {
			if provisioned.Name != name {
				continue
			}
			// The provisioner takes the node back when it cannot make the
			// volume there; the informer may also be behind the update.
			if pvc.ResourceVersion != provisioned.ResourceVersion && pvc.Annotations[storagehelpers.AnnSelectedNode] == "" {
				return false, fmt.Errorf("provisioning failed for PVC %q", name)
			}
			if selected := pvc.Annotations[storagehelpers.AnnSelectedNode]; selected != "" && selected != nodeName {
				return false, fmt.Errorf("selectedNode annotation value %q not set to scheduled node %q", selected, nodeName)
			}
		}
		return false, nil
	}
	return true, nil
}

// hasCapacity asks what drivers published about the room they have, where a
// driver does so.
func (p *Plugin) hasCapacity(class *storagev1.StorageClass, pvc *corev1.PersistentVolumeClaim, node *corev1.Node) bool {
	size, ok := pvc.Spec.Resources.Requests[corev1.ResourceStorage]
	if !ok {
		return true
	}
	driver, err := p.drivers.Cached("", class.Provisioner)
	if err != nil || driver.Spec.StorageCapacity == nil || !*driver.Spec.StorageCapacity {
		return true
	}
	for _, room := range p.capacities.CachedList("", nil) {
		if room.StorageClassName != class.Name || room.NodeTopology == nil {
			continue
		}
		limit := room.MaximumVolumeSize
		if limit == nil {
			limit = room.Capacity
		}
		if limit == nil || limit.Cmp(size) < 0 {
			continue
		}
		if s, err := metav1.LabelSelectorAsSelector(room.NodeTopology); err == nil && s.Matches(labels.Set(node.Labels)) {
			return true
		}
	}
	return false
}
