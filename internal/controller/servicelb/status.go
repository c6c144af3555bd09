// SPDX-License-Identifier: Apache-2.0

package servicelb

import (
	"context"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/controller/balance"
)

// The condition of a Service that has no address, and its reason.
const (
	conditionType = "kaji.dev/LoadBalancerAssigned"
	failedReason  = "SyncLoadBalancerFailed"
)

// change is what a Service shall be like.
type change struct {
	keep  bool // it has, or shall have, a load balancer
	addrs []netip.Addr
	pool  string
	err   error
}

// write brings finalizer, annotation, addresses and condition in line, in one
// patch of the status: all or nothing, and on the version that was read.
func (c *Controller) write(ctx context.Context, s *corev1.Service, to change) error {
	next := s.DeepCopy()
	to.apply(next)
	if equality.Semantic.DeepEqual(s.Finalizers, next.Finalizers) && s.Annotations[PoolAnnotation] == next.Annotations[PoolAnnotation] &&
		equality.Semantic.DeepEqual(s.Status, next.Status) {
		return nil
	}
	var pool any // null takes it away
	if to.pool != "" {
		pool = to.pool
	}
	patch := map[string]any{
		"metadata": map[string]any{"resourceVersion": s.ResourceVersion, "finalizers": next.Finalizers, "annotations": map[string]any{PoolAnnotation: pool}},
		"status":   map[string]any{"loadBalancer": map[string]any{"ingress": ingressOf(to.addrs)}, "conditions": next.Status.Conditions},
	}
	_, err := c.services.MergePatch(ctx, s.Namespace, s.Name, patch, "status")
	return err
}

func (to change) apply(s *corev1.Service) {
	if to.keep {
		s.Finalizers = balance.With(s)
	} else {
		s.Finalizers = balance.Without(s)
	}
	if to.pool == "" {
		delete(s.Annotations, PoolAnnotation)
	} else {
		metav1.SetMetaDataAnnotation(&s.ObjectMeta, PoolAnnotation, to.pool)
	}
	s.Status.LoadBalancer.Ingress = ingressOf(to.addrs)
	if to.err == nil {
		meta.RemoveStatusCondition(&s.Status.Conditions, conditionType)
		return
	}
	meta.SetStatusCondition(&s.Status.Conditions, metav1.Condition{Type: conditionType, Status: metav1.ConditionFalse, Reason: failedReason,
		Message: to.err.Error(), ObservedGeneration: s.Generation})
}

func ingressOf(addrs []netip.Addr) []corev1.LoadBalancerIngress {
	var out []corev1.LoadBalancerIngress
	for _, a := range addrs {
		out = append(out, corev1.LoadBalancerIngress{IP: a.String(), IPMode: ptr.To(corev1.LoadBalancerIPModeVIP)})
	}
	return out
}

// addressesIn returns the addresses of a Service's status.
func addressesIn(s *corev1.Service) []netip.Addr {
	var out []netip.Addr
	for _, i := range s.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(i.IP); err == nil {
			out = append(out, a)
		}
	}
	return out
}
