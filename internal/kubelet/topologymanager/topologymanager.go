// SPDX-License-Identifier: Apache-2.0

// Package topologymanager has processors, memory and devices of a container come
// from the same NUMA nodes. It asks each manager of a resource for hints, merges
// them by the policy, and has the managers allocate near what it chose; a pod that
// the policy cannot place is refused. The agent's root asks it at admission; it
// keeps nothing, and knows no resource itself. Policies, scopes and messages are
// upstream's (KEP-693).
package topologymanager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/kubelet/hardware"
)

// Policies, and the scopes they work in.
const (
	None           = "none"
	BestEffort     = "best-effort"
	Restricted     = "restricted"
	SingleNUMANode = "single-numa-node"

	ContainerScope = "container"
	PodScope       = "pod"
)

// Options of policies.
const (
	preferClosest = "prefer-closest-numa-nodes"
	maxNodes      = "max-allowable-numa-nodes"
	usualMaxNodes = 8
)

// Provider manages a resource that has places.
type Provider interface {
	// Hints are the sets of nodes that a container's request can be satisfied
	// from, by resource; those of the whole pod where c is nil. None for a
	// resource means no preference, an empty list that there is no way.
	Hints(pod *corev1.Pod, c *corev1.Container) map[string][]Hint
	// Allocate gives a container what it asks for, from the nodes of a hint if
	// that says some. An error that is no *Refusal is unexpected.
	Allocate(ctx context.Context, pod *corev1.Pod, c *corev1.Container, from Hint) error
}

// Refusal is why a pod is not taken, as its status shows it.
type Refusal struct{ Reason, Message string }

func (r *Refusal) Error() string { return r.Message }

// Config is what a Manager decides by.
type Config struct {
	// Policy and Scope are one of the constants; "" means none and container.
	Policy, Scope string
	Options       map[string]string
	Nodes         []hardware.Node
	// Providers are asked in their order.
	Providers []Provider
	// Aligned is told, where the policy guarantees it, whether a pod or a container
	// (scope) got what is near to each other; nil tells nobody.
	Aligned func(scope string, ok bool)
}

// Manager admits pods. Calls of Admit must not overlap.
type Manager struct {
	cfg     Config
	ids     []int
	all     Mask
	closest bool
}

// New returns a Manager; the error says what the machine or the options lack.
func New(cfg Config) (*Manager, error) {
	if cfg.Policy == "" {
		cfg.Policy = None
	}
	if cfg.Scope == "" {
		cfg.Scope = ContainerScope
	}
	m := &Manager{cfg: cfg}
	for _, n := range cfg.Nodes {
		m.ids = append(m.ids, n.ID)
	}
	m.all = MaskOf(m.ids...)
	if cfg.Policy == None {
		return m, nil
	}
	if !slices.Contains([]string{BestEffort, Restricted, SingleNUMANode}, cfg.Policy) {
		return nil, fmt.Errorf("unknown policy: %q", cfg.Policy)
	}
	most := usualMaxNodes
	for name, text := range cfg.Options {
		var err error
		switch name {
		case preferClosest:
			if m.closest, err = strconv.ParseBool(text); err != nil {
				return nil, fmt.Errorf("bad value for option %q: %w", name, err)
			}
		case maxNodes:
			if most, err = strconv.Atoi(text); err != nil {
				return nil, fmt.Errorf("unable to convert policy option to integer %q: %w", name, err)
			}
			if most < usualMaxNodes {
				return nil, fmt.Errorf("the minimum value of %q should not be less than %v", name, usualMaxNodes)
			}
		default:
			return nil, fmt.Errorf("unknown Topology Manager Policy option: %q", name)
		}
	}
	if len(m.ids) > most {
		return nil, fmt.Errorf("unsupported on machines with more than %v NUMA Nodes", most)
	}
	return m, nil
}

// Admit allocates what the containers of a pod ask for; a Refusal says why that
// is not possible, and what was allocated before stays with the pod.
func (m *Manager) Admit(ctx context.Context, pod *corev1.Pod) *Refusal {
	hint := Hint{}
	if m.cfg.Policy != None && m.cfg.Scope == PodScope {
		var ok bool
		if hint, ok = m.affinity(pod, nil); !ok {
			m.aligned(false)
			return refused()
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			c := &list[i]
			if m.cfg.Policy != None && m.cfg.Scope == ContainerScope {
				var ok bool
				if hint, ok = m.affinity(pod, c); !ok {
					m.aligned(false)
					return refused()
				}
			}
			for _, p := range m.cfg.Providers {
				if err := p.Allocate(ctx, pod, c, hint); err != nil {
					return refusal(err)
				}
			}
			if m.cfg.Scope == ContainerScope {
				m.aligned(true)
			}
		}
	}
	if m.cfg.Scope == PodScope {
		m.aligned(true)
	}
	return nil
}

// aligned tells of a success or a failure where there is a guarantee.
func (m *Manager) aligned(ok bool) {
	if m.cfg.Aligned != nil && (m.cfg.Policy == Restricted || m.cfg.Policy == SingleNUMANode) {
		m.cfg.Aligned(m.cfg.Scope, ok)
	}
}

func refused() *Refusal {
	return &Refusal{"TopologyAffinityError", "Resources cannot be allocated with Topology locality"}
}

func refusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{"UnexpectedAdmissionError", fmt.Sprintf("Allocate failed due to %v, which is unexpected", err)}
}

// affinity merges the providers' hints; false says that the policy refuses what
// came of it.
func (m *Manager) affinity(pod *corev1.Pod, c *corev1.Container) (Hint, bool) {
	var all []map[string][]Hint
	for _, p := range m.cfg.Providers {
		all = append(all, p.Hints(pod, c))
	}
	lists := gather(all)
	if m.cfg.Policy == SingleNUMANode {
		best := m.merge(single(lists))
		if best.Affinity == m.all {
			best.Affinity = 0
		}
		return best, best.Preferred
	}
	best := m.merge(lists)
	return best, m.cfg.Policy == BestEffort || best.Preferred
}
