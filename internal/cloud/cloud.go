// SPDX-License-Identifier: Apache-2.0

// Package cloud is the seam between the cloud controllers and where the
// machines come from. A provider is a child of this package; the controllers
// that stand on it are children of package controller. Its shape is that of
// k8s.io/cloud-provider, without that package's own clients.
package cloud

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
)

// ErrUnknown is returned for a machine that the provider does not know.
var ErrUnknown = errors.New("instance not found")

// Provider is a cloud. What it does not do is nil.
type Provider interface {
	// Name is the name that --cloud-provider selects, and the scheme of
	// providers' IDs.
	Name() string
	Machines() Machines
	Routes() Routes
	Balancers() Balancers
}

// Machines knows the nodes' machines. It looks at a node's provider ID first,
// else at its name. Its methods are called concurrently.
type Machines interface {
	// Exists says whether a node's machine is there, running or not.
	Exists(ctx context.Context, node *corev1.Node) (bool, error)
	// Shutdown says whether a node's machine is there and does not run.
	Shutdown(ctx context.Context, node *corev1.Node) (bool, error)
	// Describe tells about a node's machine; ErrUnknown if it does not know it.
	Describe(ctx context.Context, node *corev1.Node) (*Machine, error)
}

// Machine is what is written on a node. Empty fields leave it as it is.
type Machine struct {
	// ProviderID is "<provider>://<id>", and must not be empty.
	ProviderID string
	// Type, Zone and Region become well-known labels.
	Type, Zone, Region string
	// Labels are added where the node has none of that name.
	Labels    map[string]string
	Addresses []corev1.NodeAddress
}

// Route leads a range of pods to a node.
type Route struct {
	// Name is the provider's.
	Name string
	// Node is the target; empty if the provider does not know it.
	Node      string
	Addresses []corev1.NodeAddress
	CIDR      string
	// Blackhole says that the target is gone.
	Blackhole bool
}

// Routes are the routes between nodes of one cluster.
type Routes interface {
	List(ctx context.Context, cluster string) ([]Route, error)
	// Create makes a route; hint may become part of its name.
	Create(ctx context.Context, cluster, hint string, r Route) error
	Delete(ctx context.Context, cluster string, r Route) error
}

// Balancers lead traffic from outside to Services. Services and nodes are not
// to be changed.
type Balancers interface {
	// Ensure makes a Service's balancer, or changes it; again and again until it
	// stands. It returns what clients reach it by.
	Ensure(ctx context.Context, cluster string, s *corev1.Service, nodes []*corev1.Node) (*corev1.LoadBalancerStatus, error)
	// Update tells a balancer that stands its nodes.
	Update(ctx context.Context, cluster string, s *corev1.Service, nodes []*corev1.Node) error
	// Delete removes a Service's balancer; none is no error.
	Delete(ctx context.Context, cluster string, s *corev1.Service) error
}
