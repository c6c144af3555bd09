// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"time"

	"kaji/internal/client/lease"
	"kaji/internal/lifecycle"
)

// Upstream's patience with leaders.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// shared says that other servers may serve the same store.
func (cl *Cluster) shared() bool { return len(cl.c.API.Store.EtcdServers) > 0 }

// alone adds a component that works in one server of a cluster at a time. Servers
// with a store in common elect it by a Lease, named as upstream's is; a server
// that loses it waits for the next turn and serves the API meanwhile.
func (cl *Cluster) alone(group *lifecycle.Group, name, leaseName string, run func(context.Context) error) {
	if !cl.shared() {
		group.Go(name, run)
		return
	}
	group.Go(name, func(ctx context.Context) error {
		api, err := cl.plane.Client("system:"+leaseName, nil, leaseName)
		if err != nil {
			return err
		}
		log := cl.c.Logger.With("component", name)
		for ctx.Err() == nil {
			err := lease.Lead(ctx, lease.Config{Client: api, Namespace: "kube-system", Name: leaseName, Hostname: cl.c.NodeName,
				LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod}, func(ctx context.Context) error {
				log.Info("leading")
				return run(ctx)
			})
			if errors.Is(err, lease.ErrLost) {
				log.Warn("another server leads now")
				continue
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}
