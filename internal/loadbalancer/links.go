// SPDX-License-Identifier: Apache-2.0

package loadbalancer

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"

	"kaji/internal/loadbalancer/neighbour"
	"kaji/internal/netfilter"
)

// link is a link of the node on which an address of a pool is reached.
type link struct {
	*neighbour.Link
	name     string
	index    int
	own      []netip.Addr
	prefixes []netip.Prefix
}

// links are those on which the node listens; Run's goroutine uses them.
type links struct {
	netns     int
	hear      func(*link, neighbour.Message)
	all       map[int]*link
	outward   map[bool]int // the default route's link, by IPv6
	listening sync.WaitGroup
}

func newLinks(netns int, hear func(*link, neighbour.Message)) *links {
	return &links{netns: netns, hear: hear, all: map[int]*link{}}
}

func (l *links) open() bool { return len(l.all) > 0 }

// refresh listens on the links of the addresses, and on no others.
func (l *links) refresh(wanted map[netip.Addr]want) error {
	return netfilter.Within(l.netns, func() error {
		found, err := l.scan()
		if err != nil {
			return err
		}
		used := map[int]bool{}
		for addr := range wanted {
			used[l.choose(found, addr)] = true
		}
		for index, old := range l.all {
			now := found[index]
			if !used[index] || now == nil || now.name != old.name || !slices.Equal(now.own, old.own) {
				delete(l.all, index)
				if err := old.Close(); err != nil {
					return err
				}
			}
		}
		for index := range used {
			if now := found[index]; now != nil && l.all[index] == nil {
				if err := l.listen(now); err != nil {
					return fmt.Errorf("link %s: %w", now.name, err)
				}
			}
		}
		return nil
	})
}

// scan reads the links that are up and have an Ethernet address.
func (l *links) scan() (map[int]*link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing links: %w", err)
	}
	found := map[int]*link{}
	for _, o := range all {
		attrs := o.Attrs()
		if attrs.Flags&net.FlagUp == 0 || attrs.Flags&net.FlagLoopback != 0 || len(attrs.HardwareAddr) != 6 {
			continue
		}
		addrs, err := netlink.AddrList(o, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("addresses of %s: %w", attrs.Name, err)
		}
		one := &link{name: attrs.Name, index: attrs.Index}
		for _, a := range addrs {
			addr, ok := netip.AddrFromSlice(a.IP)
			bits, _ := a.Mask.Size()
			if addr = addr.Unmap(); ok && bits < addr.BitLen() {
				one.own = append(one.own, addr)
				one.prefixes = append(one.prefixes, netip.PrefixFrom(addr, bits).Masked())
			}
		}
		if len(one.own) > 0 {
			found[one.index] = one
		}
	}
	return found, l.scanRoutes()
}

func (l *links) scanRoutes() error {
	l.outward = map[bool]int{}
	for v6, family := range map[bool]int{false: netlink.FAMILY_V4, true: netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		if err != nil {
			return fmt.Errorf("listing routes: %w", err)
		}
		best := -1
		for _, r := range routes {
			if (r.Dst == nil || isDefault(r.Dst)) && r.LinkIndex > 0 && (best < 0 || r.Priority < best) {
				l.outward[v6], best = r.LinkIndex, r.Priority
			}
		}
	}
	return nil
}

func isDefault(n *net.IPNet) bool {
	bits, _ := n.Mask.Size()
	return bits == 0
}

// choose returns the link on which an address is reached: the one with its
// prefix, or that of the default route.
func (l *links) choose(found map[int]*link, addr netip.Addr) int {
	best, bits := l.outward[addr.Is6()], -1
	for index, one := range found {
		for _, p := range one.prefixes {
			if p.Contains(addr) && p.Bits() > bits {
				best, bits = index, p.Bits()
			}
		}
	}
	return best
}

// of returns the open link of an address.
func (l *links) of(addr netip.Addr) *link { return l.all[l.choose(l.all, addr)] }

// listen opens a link; its namespace is the thread's.
func (l *links) listen(one *link) error {
	device, err := netlink.LinkByIndex(one.index)
	if err != nil {
		return err
	}
	var source netip.Addr
	for _, a := range one.own {
		if a.Is6() && (!source.IsValid() || a.IsLinkLocalUnicast()) {
			source = a
		}
	}
	if one.Link, err = neighbour.Open(one.index, device.Attrs().HardwareAddr, source); err != nil {
		return err
	}
	quiet(one.name)
	l.all[one.index] = one
	for _, v6 := range []bool{false, true} {
		l.listening.Go(func() {
			// The link is opened anew when something changes.
			_ = one.Listen(v6, func(m neighbour.Message) { l.hear(one, m) })
		})
	}
	return nil
}

// quiet stops the kernel from sending ICMP redirects on a link: a client would
// be told to go to an address by itself that nobody else answers for, and gets
// no "port unreachable" then, for both share one limit of rate. Where the
// settings cannot be written, that is all that is lost.
func quiet(link string) {
	for _, name := range []string{"all", link} {
		_ = os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/send_redirects", []byte("0"), 0o644)
	}
}

// close ends all listening and waits.
func (l *links) close() error {
	var errs []error
	for index, one := range l.all {
		errs = append(errs, one.Close())
		delete(l.all, index)
	}
	l.listening.Wait()
	return errors.Join(errs...)
}
