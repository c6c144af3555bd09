// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"

	"kaji/internal/cni/nodenet"
)

// addressFile lists the addresses the cluster gave the loopback link.
func addressFile(name string) string { return filepath.Join(StateRoot, name, "addresses") }

// takeAddresses gives this machine the addresses, on the loopback link: each
// node answers on the same ones.
func takeAddresses(name string, addrs []netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, addr := range addrs {
		err := netlink.AddrAdd(lo, hostAddress(addr))
		if err != nil && addr.Is6() && nodenet.IPv6Off() {
			return fmt.Errorf("address %s: IPv6 is switched off on this machine, and the cluster has ranges of it", addr)
		}
		if err != nil && !errors.Is(err, syscall.EEXIST) {
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
