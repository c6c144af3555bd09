// SPDX-License-Identifier: Apache-2.0

// Package local is the cloud of machines that nobody rents: the nodes say
// themselves where they are, a file may say more. Routes are the pod network's
// business, balancers that of package servicelb.
package local

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"kaji/internal/cloud"
)

// Name is the provider's name.
const Name = "local"

// maxFile bounds the file.
const maxFile = 16 << 20

// Provider implements cloud.Provider.
type Provider struct{ path string }

var _ cloud.Provider = (*Provider)(nil)

// New returns the provider. The file at path, if any, is read whenever a machine
// is asked for, so that it can be changed.
func New(path string) (*Provider, error) {
	p := &Provider{path}
	_, err := p.inventory()
	return p, err
}

// Name implements cloud.Provider.
func (p *Provider) Name() string { return Name }

// Machines implements cloud.Provider.
func (p *Provider) Machines() cloud.Machines { return p }

// Routes implements cloud.Provider.
func (p *Provider) Routes() cloud.Routes { return nil }

// Balancers implements cloud.Provider.
func (p *Provider) Balancers() cloud.Balancers { return nil }

// inventory is what the file says.
type inventory struct {
	// Region, Zone and Type are those of machines that say nothing else.
	Region string `json:"region,omitempty"`
	Zone   string `json:"zone,omitempty"`
	Type   string `json:"type,omitempty"`
	// Machines are all machines there are: nodes without one are deleted once
	// they are not ready. Nil says that every node has its machine.
	Machines []machine `json:"machines,omitempty"`
}

type machine struct {
	// Name is the node's name.
	Name   string `json:"name"`
	Region string `json:"region,omitempty"`
	Zone   string `json:"zone,omitempty"`
	Type   string `json:"type,omitempty"`
	// Stopped says that it is there and does not run.
	Stopped bool              `json:"stopped,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	// Addresses replace those that the node says.
	Addresses []corev1.NodeAddress `json:"addresses,omitempty"`
}

func (p *Provider) inventory() (*inventory, error) {
	out := &inventory{}
	if p.path == "" {
		return out, nil
	}
	f, err := os.Open(p.path)
	if err != nil {
		return nil, fmt.Errorf("cloud configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("cloud configuration: %w", err)
	}
	if err := yaml.UnmarshalStrict(data, out); err != nil {
		return nil, fmt.Errorf("cloud configuration %s: %w", p.path, err)
	}
	return out, nil
}

// machine returns a node's machine, nil if it is not there.
func (p *Provider) machine(node *corev1.Node) (*machine, error) {
	all, err := p.inventory()
	if err != nil {
		return nil, err
	}
	m := machine{Name: node.Name}
	if all.Machines != nil {
		i := slices.IndexFunc(all.Machines, func(m machine) bool { return m.Name == node.Name })
		if i < 0 {
			return nil, nil
		}
		m = all.Machines[i]
	}
	for _, d := range []struct{ to, from *string }{{&m.Region, &all.Region}, {&m.Zone, &all.Zone}, {&m.Type, &all.Type}} {
		if *d.to == "" {
			*d.to = *d.from
		}
	}
	return &m, nil
}

// Exists implements cloud.Machines.
func (p *Provider) Exists(_ context.Context, node *corev1.Node) (bool, error) {
	m, err := p.machine(node)
	return m != nil, err
}

// Shutdown implements cloud.Machines.
func (p *Provider) Shutdown(_ context.Context, node *corev1.Node) (bool, error) {
	m, err := p.machine(node)
	return m != nil && m.Stopped, err
}

// Describe implements cloud.Machines.
func (p *Provider) Describe(_ context.Context, node *corev1.Node) (*cloud.Machine, error) {
	m, err := p.machine(node)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, cloud.ErrUnknown
	}
	out := &cloud.Machine{ProviderID: Name + "://" + node.Name, Type: m.Type, Zone: m.Zone, Region: m.Region, Labels: m.Labels, Addresses: m.Addresses}
	if len(out.Addresses) == 0 {
		out.Addresses = slices.Clone(node.Status.Addresses)
	}
	if node.Spec.ProviderID != "" {
		out.ProviderID = node.Spec.ProviderID
	}
	return out, nil
}
