// SPDX-License-Identifier: Apache-2.0

package endpointslice

import (
	"context"
	"slices"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/endpointslice/topologycache"
)

// spreads says whether a Service asks by annotation for its traffic to be spread
// over zones as the nodes' processors are (KEP-2433).
func spreads(svc *corev1.Service) bool {
	mode, ok := svc.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	if !ok {
		mode = svc.Annotations[corev1.AnnotationTopologyMode]
	}
	return mode == "Auto" || mode == "auto"
}

// same compares endpoints, those of Services that spread without their hints,
// which are decided on later.
func same(svc *corev1.Service, have, want []discoveryv1.Endpoint) bool {
	if spreads(svc) {
		have = slices.Clone(have)
		for i := range have {
			have[i].Hints = nil
		}
	}
	return equality.Semantic.DeepEqual(have, want)
}

// spread sets the hints of one family's slices, if the Service asks for them;
// slices that were to stay as they are may have to change for that.
func (c *Controller) spread(ctx context.Context, svc *corev1.Service, info *topologycache.SliceInfo) {
	if !spreads(svc) {
		if c.zones.HasPopulatedHints(info.ServiceKey) {
			c.events.Record(ctx, svc, kind, corev1.EventTypeWarning, "TopologyAwareHintsDisabled", "%s",
				topologycache.FormatWithAddressType(topologycache.TopologyAwareHintsDisabled, info.AddressType))
			c.zones.RemoveHints(info.ServiceKey, info.AddressType)
		}
		return
	}
	if c.nodesChanged.Swap(false) {
		c.zones.SetNodes(logr.Discard(), c.nodes.CachedList("", nil))
	}
	created, updated, events := c.zones.AddHints(logr.Discard(), info)
	info.ToCreate, info.ToUpdate = created, updated
	for _, e := range events {
		c.events.Record(ctx, svc, kind, e.EventType, e.Reason, "%s", e.Message)
	}
}

// nodeChanged lets the Services that spread be looked at again.
func (c *Controller) nodeChanged() {
	c.nodesChanged.Store(true)
	for _, svc := range c.services.CachedList("", nil) {
		if spreads(svc) {
			c.add(svc)
		}
	}
}

// share says what of a node counts for the spreading.
func share(n *corev1.Node) (ready bool, cpu int64) {
	ready = slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	return ready, n.Status.Allocatable.Cpu().MilliValue()
}
