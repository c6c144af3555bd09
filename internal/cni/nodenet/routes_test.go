// SPDX-License-Identifier: Apache-2.0

package nodenet

import (
	"fmt"
	"net/netip"
	"testing"

	"kaji/internal/netfilter/nstest"
)

func TestOverlapping(t *testing.T) {
	node, peer := nstest.New(t), nstest.New(t)
	node.Connect("vpn0", "192.0.2.1/24", peer, "eth0", "192.0.2.2/24")
	node.Route("10.0.0.0/8", "192.0.2.2")
	node.Connect("kaji0", "10.96.9.1/24", peer, "eth1", "10.96.9.2/24")
	for of, want := range map[string]string{"10.96.0.0/16": "[10.0.0.0/8 by vpn0]", "192.0.0.0/16": "[192.0.2.0/24 by vpn0]", "198.51.100.0/24": "[]", "fd00::/64": "[]"} {
		node.Do(func() error {
			got, err := Overlapping([]netip.Prefix{netip.MustParsePrefix(of)})
			if fmt.Sprint(got) != want {
				t.Errorf("%s overlaps %v, want %s", of, got, want)
			}
			return err
		})
	}
}
