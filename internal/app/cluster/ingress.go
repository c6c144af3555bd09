// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"

	"kaji/internal/ingress"
	"kaji/internal/lifecycle"
)

// ingress serves Ingresses at ports 80 and 443 of the first node.
func (cl *Cluster) ingress(group *lifecycle.Group) error {
	client, err := cl.plane.Client("system:serviceaccount:kube-system:kaji-ingress", []string{"system:serviceaccounts", "system:serviceaccounts:kube-system"}, "kaji-ingress")
	if err != nil {
		return err
	}
	c, err := ingress.New(ingress.Config{Client: client, NodeName: cl.c.NodeName, Metrics: cl.metrics, Logger: cl.c.Logger.With("component", "ingress")})
	if err != nil {
		return err
	}
	group.Go("ingress", func(ctx context.Context) error {
		select {
		case <-cl.addonsTried: // they give it its rights
		case <-ctx.Done():
			return nil
		}
		client.Start(ctx)
		defer client.Wait()
		return c.Run(ctx)
	})
	return nil
}
