// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"

	"kaji/internal/ingress"
	"kaji/internal/ingress/listen"
	"kaji/internal/lifecycle"
)

// Ingress says where the node serves Ingresses. The zero value is nowhere.
type Ingress struct {
	// Address is an IP address of the node; empty is all of them.
	Address string
	// HTTPPort and HTTPSPort are the ports; zero is none.
	HTTPPort, HTTPSPort uint16
	// Leftover, unless nil, gets what is still being answered when the node ends.
	Leftover *lifecycle.Leftover
	// Lead is true on one node of the cluster, which writes status and Events.
	Lead bool
	// OwnAddresses gives each Gateway an address of the load balancers' pool.
	OwnAddresses bool
}

// ingress serves Ingresses on this node. It listens only once there is one, and
// a port that belongs to another is no reason for the node not to start.
func (n *Node) ingress(group *lifecycle.Group) error {
	c := n.c
	if c.Ingress.HTTPPort == 0 && c.Ingress.HTTPSPort == 0 {
		return nil
	}
	api, err := c.Client(IngressController)
	if err != nil {
		return err
	}
	own, err := c.Client(Kubelet)
	if err != nil {
		return err
	}
	s, err := ingress.New(ingress.Config{Client: api, Node: own, NodeName: c.NodeName, Lead: c.Ingress.Lead, OwnAddresses: c.Ingress.OwnAddresses, HTTPPort: c.Ingress.HTTPPort, HTTPSPort: c.Ingress.HTTPSPort,
		Listen: listen.At(c.Ingress.Address), Leftover: c.Ingress.Leftover, Metrics: c.Metrics, Logger: c.Logger.With("component", "ingress")})
	if err != nil {
		return err
	}
	group.Go("ingress", func(ctx context.Context) error {
		if !c.permitted(ctx) {
			return nil
		}
		api.Start(ctx)
		return s.Run(ctx)
	})
	return nil
}
