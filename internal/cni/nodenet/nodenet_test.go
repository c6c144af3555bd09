// SPDX-License-Identifier: Apache-2.0

package nodenet_test

import (
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"kaji/internal/cni/nodenet"
	"kaji/internal/netfilter/nstest"
)

// A node gets its link also where the one of a former life is still there: a
// process that lingers in the old namespace keeps it.
func TestNamespaceThatLingers(t *testing.T) {
	machine := nstest.New(t)
	n := nodenet.Network{Cluster: fmt.Sprint("test", os.Getpid()), Subnet: netip.MustParsePrefix("100.127.0.0/24")}
	open := func() error {
		if err := n.Open(); err != nil {
			return err
		}
		return n.Add("b", 2)
	}
	machine.Do(open)
	t.Cleanup(func() { machine.Do(n.Close) })
	lingering, err := netns.GetFromName(n.Namespace("b"))
	if err != nil {
		t.Fatal(err)
	}
	defer lingering.Close()
	machine.Do(n.Close)
	machine.Do(open)
	if err := n.Do("b", func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if err == nil && (len(addrs) != 1 || addrs[0].IP.String() != "100.127.0.2") {
			err = fmt.Errorf("addresses %v", addrs)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}
