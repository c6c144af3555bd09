// SPDX-License-Identifier: Apache-2.0

// Package balance holds the rules that a Service's load balancer follows whether
// a cloud makes it or the cluster itself: those of upstream's service controller.
// The controllers of both share it.
package balance

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

const (
	// Finalizer keeps a Service until its balancer is gone.
	Finalizer = "service.kubernetes.io/load-balancer-cleanup"
	// leaving is the taint of nodes that an autoscaler is about to delete.
	leaving = "ToBeDeletedByClusterAutoscaler"
)

// Kept says whether a Service waits for its balancer to go.
func Kept(s *corev1.Service) bool { return slices.Contains(s.Finalizers, Finalizer) }

// With and Without are a Service's finalizers when it has a balancer, and when
// it has none any more.
func With(s *corev1.Service) []string {
	if Kept(s) {
		return s.Finalizers
	}
	return append(slices.Clone(s.Finalizers), Finalizer)
}

// Without is the counterpart of With.
func Without(s *corev1.Service) []string {
	return slices.DeleteFunc(slices.Clone(s.Finalizers), func(f string) bool { return f == Finalizer })
}

// Of says whether a Service is to have a balancer of one of the classes; "" is
// that of Services without a class. Whether it is being deleted does not matter.
func Of(s *corev1.Service, classes ...string) bool {
	class := ""
	if s.Spec.LoadBalancerClass != nil {
		class = *s.Spec.LoadBalancerClass
	}
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && slices.Contains(classes, class)
}

// Targets says whether balancers may send traffic to a node. Whether the node is
// ready is for the balancers of a cloud to find out.
func Targets(n *corev1.Node) bool {
	_, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]
	return !excluded && !slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == leaving })
}
