// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"net/netip"
	"time"

	"kaji/internal/app/addon"
	"kaji/internal/app/node"
	"kaji/internal/client"
	"kaji/internal/dns/corefile"
	"kaji/internal/lifecycle"
)

// addons applies what comes with the cluster.
func (cl *Cluster) addons(group *lifecycle.Group) error {
	addrs, err := cl.clusterDNS()
	if err != nil {
		return err
	}
	api, err := cl.plane.Client("system:kaji:addons", []string{"system:masters"}, "kaji-addons")
	if err != nil {
		return err
	}
	var podNetwork string
	if cl.c.Plugins != nil {
		podNetwork = node.PodNetworkCNI
	}
	values := addon.Values{PodNetwork: podNetwork, DNS: addrs, Corefile: corefile.Default(cl.c.Domain), Domain: cl.c.Domain, PodCIDRs: cl.c.PodCIDRs,
		Server: cl.plane.Advertised(), Off: cl.c.Off, CA: string(cl.plane.Keys.CA.Cert)}
	group.Go("addons", func(ctx context.Context) error { return cl.keepAddons(ctx, api, values) })
	if !cl.c.GatewayAPI {
		return nil
	}
	group.Go("gateway API", func(ctx context.Context) error {
		select {
		case <-cl.addonsTried:
			cl.gatewayAPI(ctx, api)
		case <-ctx.Done():
		}
		<-ctx.Done()
		return nil
	})
	return nil
}

// lookPeriod is how often the owner's add-ons are looked at for changes.
const lookPeriod = 5 * time.Second

// keepAddons applies the add-ons until it has worked once, as what stands in the
// way (a webhook whose pods are not up yet) may end by itself, and again when a
// file of the owner's changes.
func (cl *Cluster) keepAddons(ctx context.Context, api client.Interface, values addon.Values) error {
	dir := cl.c.Dir.Addons()
	applied := addon.Stamp(dir)
	err := addon.Apply(ctx, api, values, cl.c.Off, dir)
	close(cl.addonsTried)
	for delay := time.Second; ctx.Err() == nil; {
		pause := lookPeriod
		if err != nil {
			cl.c.Logger.Warn("an add-on cannot be applied yet, it is tried again", "err", err, "after", delay)
			pause, delay = delay, min(2*delay, time.Minute)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		now := addon.Stamp(dir)
		if now != applied {
			delay = time.Second
		}
		if err != nil || now != applied {
			applied = now
			err = addon.Apply(ctx, api, values, cl.c.Off, dir)
		}
	}
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
