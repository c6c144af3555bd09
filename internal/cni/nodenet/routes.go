// SPDX-License-Identifier: Apache-2.0

package nodenet

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
)

// IPv6Off says whether addresses of that family cannot be given in this network
// namespace.
func IPv6Off() bool {
	data, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	return err != nil || strings.TrimSpace(string(data)) == "1"
}

// Overlapping names the networks that this machine has a way to and that share
// addresses with one of the ranges, each with its link. The clusters' own links
// do not count.
func Overlapping(ranges []netip.Prefix) ([]string, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("reading routes: %w", err)
	}
	var out []string
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		addr, ok := netip.AddrFromSlice(r.Dst.IP)
		ones, _ := r.Dst.Mask.Size()
		p := netip.PrefixFrom(addr.Unmap(), ones)
		if !ok || ones == 0 || p.IsSingleIP() {
			continue
		}
		link, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil || strings.HasPrefix(link.Attrs().Name, "kaji") || strings.HasPrefix(link.Attrs().Name, "kj") {
			continue // a link that is gone has no way to anywhere
		}
		for _, own := range ranges {
			if own.Overlaps(p) {
				out = append(out, fmt.Sprintf("%s by %s", p, link.Attrs().Name))
			}
		}
	}
	return out, nil
}
