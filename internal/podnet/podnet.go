// SPDX-License-Identifier: Apache-2.0

// Package podnet is the seam between a container runtime and what connects a
// pod sandbox to the cluster's network. The embedded runtime calls it; engines
// are the embedded network (internal/cni/veth) and the plug-ins of the Container
// Network Interface (internal/cni/plugin).
package podnet

import (
	"context"
	"net/netip"
)

// Sandbox names a pod sandbox and its network namespace.
type Sandbox struct {
	// ID is the runtime's sandbox id, unique on the node.
	ID                   string
	Namespace, Name, UID string
	// Netns is the path of the network namespace, such as "/run/netns/x".
	// On Teardown it may be gone.
	Netns string
	// Interface is the name of the pod's interface; "eth0" when empty.
	Interface string
	// Ports are the host ports to publish.
	Ports []PortMapping
	// IngressBandwidth and EgressBandwidth are bits per second, zero for none.
	IngressBandwidth, EgressBandwidth int64
	Annotations                       map[string]string
}

// PortMapping publishes a container's port on the host.
type PortMapping struct {
	// Protocol is "TCP", "UDP" or "SCTP".
	Protocol                string
	HostIP                  string
	HostPort, ContainerPort int32
}

// Result tells how a sandbox was connected.
type Result struct {
	// IPs are the pod's addresses, the primary one first.
	IPs []netip.Addr
	// Interface is the name inside the namespace, "eth0".
	Interface string
}

// Network connects sandboxes. All methods are safe for concurrent use.
type Network interface {
	// Setup connects a sandbox. It is called once a sandbox; after an error
	// Teardown is called for the same sandbox.
	Setup(ctx context.Context, s Sandbox) (*Result, error)
	// Teardown releases what Setup made; it succeeds when nothing is left, so
	// it may be repeated, also after a restart of the process.
	Teardown(ctx context.Context, s Sandbox) error
	// Check verifies that a sandbox is still connected.
	Check(ctx context.Context, s Sandbox) (*Result, error)
	// Ready is nil when pods can be connected; the error says in plain words
	// what is missing ("no pod CIDR assigned to the node yet").
	Ready(ctx context.Context) error
	// SetPodCIDRs tells the node's pod address ranges, when they become known.
	SetPodCIDRs(ctx context.Context, cidrs []netip.Prefix) error
}

// Collector is a Network that keeps something of its own about sandboxes, which can
// outlive the runtime's memory of them.
type Collector interface {
	// Collect releases what belongs to none of the sandboxes. It is called before
	// the first Setup of a process.
	Collect(ctx context.Context, sandboxes []Sandbox) error
}
