// SPDX-License-Identifier: Apache-2.0

package nodenet_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"kaji/internal/cni/nodenet"
	"kaji/internal/netfilter/nstest"
)

// dial reads what a listener says.
func dial(address string) error {
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	got, err := io.ReadAll(conn)
	if err == nil && string(got) != "here" {
		err = fmt.Errorf("got %q", got)
	}
	return err
}

// Nodes reach one another, and the machine them, over a bridge that the
// machine's packet filter does not see.
func TestWays(t *testing.T) {
	machine := nstest.New(t)
	n := nodenet.Network{Cluster: fmt.Sprint("ways", os.Getpid()), Subnet: netip.MustParsePrefix("100.127.0.0/24")}
	t.Cleanup(func() { machine.Do(n.Close) })
	machine.Do(func() error { return errors.Join(n.Open(), n.Add("b", 2), n.Add("c", 3)) })
	machine.Do(func() error { return errors.Join(n.Open(), n.Add("b", 2), n.Add("c", 3)) }) // changes nothing
	var l net.Listener
	if err := n.Do("c", func() (err error) {
		l, err = net.Listen("tcp", n.Address(3).String()+":0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "here")
			_ = conn.Close()
		}
	}()
	if err := n.Do("b", func() error { return dial(l.Addr().String()) }); err != nil {
		t.Errorf("from a node: %v", err)
	}
	machine.Do(func() error {
		if err := dial(l.Addr().String()); err != nil {
			return fmt.Errorf("from the machine: %w", err)
		}
		links, err := netlink.LinkList()
		for _, link := range links {
			if link.Type() == "bridge" {
				err = fmt.Errorf("the machine has the bridge %s", link.Attrs().Name)
			}
		}
		return err
	})
}

// Pods of the machine see a node by its address; the world sees the machine's.
func TestWhoIsSeen(t *testing.T) {
	machine, pod, world := nstest.New(t), nstest.New(t), nstest.New(t)
	n := nodenet.Network{Cluster: fmt.Sprint("seen", os.Getpid()), Subnet: netip.MustParsePrefix("100.127.0.0/24")}
	t.Cleanup(func() { machine.Do(n.Close) })
	machine.Do(func() error { return errors.Join(n.Open(), n.Add("b", 2)) })
	machine.Connect("kaji0a1b", "10.244.0.1/24", pod, "eth0", "10.244.0.2/24")
	pod.Route("default", "10.244.0.1")
	machine.Connect("eth0", "192.0.2.1/24", world, "eth0", "192.0.2.2/24")
	pod.Serve("10.244.0.2:80", "pod")
	world.Serve("192.0.2.2:80", "world")
	for address, want := range map[string]string{"10.244.0.2:80": "pod 100.127.0.2\n", "192.0.2.2:80": "world 192.0.2.1\n"} {
		var got []byte
		if err := n.Do("b", func() error {
			conn, err := net.DialTimeout("tcp", address, 10*time.Second)
			if err != nil {
				return err
			}
			defer conn.Close()
			got, err = io.ReadAll(conn)
			return err
		}); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v; want %q", address, got, err, want)
		}
	}
}

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
