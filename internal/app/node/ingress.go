// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"net"
	"strconv"

	"kaji/internal/ingress"
	"kaji/internal/lifecycle"
)

// Ingress says where the node serves Ingresses. The zero value is nowhere.
type Ingress struct {
	// Address is an IP address of the node; empty is all of them.
	Address string
	// HTTPPort and HTTPSPort are the ports; zero is none.
	HTTPPort, HTTPSPort uint16
}

func (i Ingress) at(port uint16) string {
	if port == 0 {
		return ""
	}
	return net.JoinHostPort(i.Address, strconv.Itoa(int(port)))
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
	s, err := ingress.New(ingress.Config{Client: api, NodeName: c.NodeName, HTTP: c.Ingress.at(c.Ingress.HTTPPort), HTTPS: c.Ingress.at(c.Ingress.HTTPSPort),
		Metrics: c.Metrics, Logger: c.Logger.With("component", "ingress")})
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
