// SPDX-License-Identifier: Apache-2.0

package component

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

// nodeIPs are the addresses that --node-ip names; those of the default routes
// without it, where "::" or "0.0.0.0" says which family comes first.
func nodeIPs(text string) ([]netip.Addr, error) {
	var given []netip.Addr
	for _, one := range strings.Split(text, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		addr, err := netip.ParseAddr(one)
		if err != nil {
			return nil, fmt.Errorf("bad --node-ip %q: %w", text, err)
		}
		given = append(given, addr)
	}
	if len(given) > 0 && !given[0].IsUnspecified() {
		return given, nil
	}
	routes := []string{"192.0.2.1:9", "[2001:db8::1]:9"}
	if len(given) > 0 && given[0].Is6() {
		routes[0], routes[1] = routes[1], routes[0]
	}
	for _, to := range routes {
		// Connecting a datagram socket sends nothing; it only asks the routes.
		conn, err := net.Dial("udp", to)
		if err != nil {
			continue
		}
		local, err := netip.ParseAddrPort(conn.LocalAddr().String())
		conn.Close()
		if err == nil {
			return []netip.Addr{local.Addr().Unmap()}, nil
		}
	}
	return nil, errors.New("this machine has no default route: give --node-ip")
}
