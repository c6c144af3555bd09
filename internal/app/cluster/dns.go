// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/app/addon"
	"kaji/internal/dns"
	"kaji/internal/dns/corefile"
	"kaji/internal/lifecycle"
)

const dnsPort = 53

// dns starts the node's name server, on the address of the Service kube-dns.
func (cl *Cluster) dns(group *lifecycle.Group) error {
	addrs, err := cl.clusterDNS()
	if err != nil {
		return err
	}
	if err := takeAddresses(cl.c.Name, addrs); err != nil {
		return fmt.Errorf("dns: %w", err)
	}
	client, err := cl.plane.Client("system:serviceaccount:kube-system:coredns", []string{"system:serviceaccounts", "system:serviceaccounts:kube-system"}, "coredns")
	if err != nil {
		return err
	}
	var listen []netip.AddrPort
	for _, addr := range addrs {
		listen = append(listen, netip.AddrPortFrom(addr, dnsPort))
	}
	s, err := dns.New(dns.Config{Client: client, Domain: cl.c.Domain, Listen: listen, Metrics: cl.metrics,
		ConfigMap: types.NamespacedName{Namespace: "kube-system", Name: "coredns"}, Logger: cl.c.Logger.With("component", "dns")})
	if err != nil {
		return err
	}
	group.Go("dns", func(ctx context.Context) error {
		select {
		case <-cl.addonsTried: // they give the server its rights
		case <-ctx.Done():
			return nil
		}
		client.Start(ctx)
		defer client.Wait()
		return s.Run(ctx)
	})
	return nil
}

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
	values := addon.Values{DNS: addrs, Corefile: corefile.Default(cl.c.Domain)}
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
	return nil
}

// addressFile lists the addresses the cluster gave the loopback link.
func addressFile(name string) string { return filepath.Join(stateRoot, name, "addresses") }

// takeAddresses gives this machine the addresses, on the loopback link: each
// node answers on the same ones.
func takeAddresses(name string, addrs []netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, addr := range addrs {
		if err := netlink.AddrAdd(lo, hostAddress(addr)); err != nil && !errors.Is(err, syscall.EEXIST) {
			return fmt.Errorf("address %s: %w", addr, err)
		}
		fmt.Fprintln(&text, addr)
	}
	if err := os.MkdirAll(filepath.Dir(addressFile(name)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(addressFile(name), []byte(text.String()), 0o644)
}

func hostAddress(addr netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: netlink.NewIPNet(addr.AsSlice())}
}

// dropAddresses takes the addresses away again.
func dropAddresses(name string) error {
	data, err := os.ReadFile(addressFile(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	var errs []error
	for _, line := range strings.Fields(string(data)) {
		addr, err := netip.ParseAddr(line)
		if err != nil {
			continue
		}
		if err := netlink.AddrDel(lo, hostAddress(addr)); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("address %s: %w", addr, err))
		}
	}
	return errors.Join(errs...)
}
