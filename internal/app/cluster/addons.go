// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"net/netip"
	"time"

	"kaji/internal/app/addon"
	"kaji/internal/dns/corefile"
	"kaji/internal/lifecycle"
)

// addons applies what comes with the cluster, until it has worked once: what
// stands in the way (a webhook whose pods are not up yet) may end by itself.
func (cl *Cluster) addons(group *lifecycle.Group) error {
	addrs, err := cl.clusterDNS()
	if err != nil {
		return err
	}
	client, err := cl.plane.Client("system:kaji:addons", []string{"system:masters"}, "kaji-addons")
	if err != nil {
		return err
	}
	values := addon.Values{DNS: addrs, Corefile: corefile.Default(cl.c.Domain), Domain: cl.c.Domain, PodCIDRs: cl.c.PodCIDRs,
		Server: cl.plane.Advertised(), CA: string(cl.plane.Keys.CA.Cert)}
	group.Go("addons", func(ctx context.Context) error {
		err := addon.Apply(ctx, client, values, nil)
		close(cl.addonsTried)
		for delay := time.Second; err != nil && ctx.Err() == nil; delay = min(2*delay, time.Minute) {
			cl.c.Logger.Warn("an add-on cannot be applied yet, it is tried again", "err", err, "after", delay)
			select {
			case <-time.After(delay):
				err = addon.Apply(ctx, client, values, nil)
			case <-ctx.Done():
			}
		}
		<-ctx.Done()
		return nil
	})
	if !cl.c.GatewayAPI {
		return nil
	}
	group.Go("gateway API", func(ctx context.Context) error {
		select {
		case <-cl.addonsTried:
			cl.gatewayAPI(ctx, client)
		case <-ctx.Done():
		}
		<-ctx.Done()
		return nil
	})
	return nil
}

// clusterDNS is the tenth address of each service range.
func (cl *Cluster) clusterDNS() ([]netip.Addr, error) {
	cidrs, err := cl.c.API.ServiceRanges()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, cidr := range cidrs {
		addr := cidr.Addr()
		for range 10 {
			addr = addr.Next()
		}
		out = append(out, addr)
	}
	return out, nil
}
