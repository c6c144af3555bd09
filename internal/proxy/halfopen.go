// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/netfilter"
	"kaji/internal/proxy/plan"
)

// A client that tries to connect to a backend that is gone repeats its packet for
// two minutes, and the kernel sends each where it sent the first. halfOpen has
// such connections forgotten, so that the next packet gets to another backend.
type halfOpen struct {
	wake chan struct{}

	mu sync.Mutex
	// now are the TCP frontends that lost backends, with what they do now.
	now map[plan.Frontend]plan.Target
}

// halfOpenPause is the least time between two looks at what the kernel tracks.
const halfOpenPause = time.Second

// The attributes of what the kernel tracks, of its header nfnetlink_conntrack.h.
const (
	ctaStatus, ctaStatusMask         = 3, 26
	statusSeenReply                  = 2
	ctaTupleOriginal, ctaTupleAnswer = 1, 2
	ctaTupleIP, ctaTupleProtocol     = 1, 2
	ctaProtocolNumber                = 1
	ctaSourcePort, ctaTargetPort     = 2, 3
)

func newHalfOpen() *halfOpen {
	return &halfOpen{wake: make(chan struct{}, 1), now: map[plan.Frontend]plan.Target{}}
}

func (h *halfOpen) add(at plan.Frontend, before, now plan.Target) {
	if at.Protocol != corev1.ProtocolTCP || !lost(before, now) {
		return
	}
	h.mu.Lock()
	h.now[at] = now
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *halfOpen) take() flows {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := flows{now: h.now}
	h.now = map[plan.Frontend]plan.Target{}
	return f
}

// forgetHalfOpen works until ctx ends.
func (p *Proxy) forgetHalfOpen(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.halfOpen.wake:
		}
		f := p.halfOpen.take()
		err := netfilter.Within(p.c.NetNS, func() (err error) {
			if f.own, err = ownAddresses(); err != nil {
				return err
			}
			for _, fam := range p.families {
				err = errors.Join(err, f.dropHalfOpen(fam.v6))
			}
			return err
		})
		if err != nil {
			// Clients try again by themselves, from other ports.
			p.c.Logger.Warn("half-open connections to former endpoints could not be removed", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(halfOpenPause):
		}
	}
}

// dropHalfOpen deletes stale TCP connections without an answer.
func (f *flows) dropHalfOpen(v6 bool) error {
	family := uint8(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	request := func(kind, flags int) *nl.NetlinkRequest {
		r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|kind, flags)
		r.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
		return r
	}
	// The kernel leaves out what was answered, which is nearly all of it.
	ask := request(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	ask.AddData(nl.NewRtAttr(ctaStatus, make([]byte, 4)))
	ask.AddData(nl.NewRtAttr(ctaStatusMask, binary.BigEndian.AppendUint32(nil, statusSeenReply)))
	found, err := ask.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range found {
		tuple, ok := f.halfOpen(m, v6)
		if !ok {
			continue
		}
		del := request(nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
		del.AddRawData(tuple)
		if _, err := del.Execute(unix.NETLINK_NETFILTER, 0); !errors.Is(err, unix.ENOENT) { // it may be gone
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// halfOpen returns the attribute that names a connection, where it is stale.
func (f *flows) halfOpen(message []byte, v6 bool) (tuple []byte, stale bool) {
	if len(message) < nl.SizeofNfgenmsg {
		return nil, false
	}
	attrs, err := nl.ParseRouteAttr(message[nl.SizeofNfgenmsg:])
	if err != nil {
		return nil, false
	}
	var at plan.Frontend
	var from plan.Backend
	for _, a := range attrs {
		switch a.Attr.Type &^ unix.NLA_F_NESTED {
		case ctaStatus:
			if len(a.Value) != 4 || binary.BigEndian.Uint32(a.Value)&statusSeenReply != 0 {
				return nil, false // an older kernel tells of all
			}
		case ctaTupleOriginal:
			_, to, tcp := ends(a.Value, v6)
			if !tcp {
				return nil, false
			}
			at = plan.Frontend{Addr: to.Addr(), Protocol: corev1.ProtocolTCP, Port: to.Port()}
			tuple = slices.Concat(binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, uint16(len(a.Value)+unix.SizeofRtAttr)), ctaTupleOriginal|unix.NLA_F_NESTED), a.Value)
		case ctaTupleAnswer:
			source, _, _ := ends(a.Value, v6)
			from = plan.Backend{Addr: source.Addr(), Port: source.Port()}
		}
	}
	return tuple, tuple != nil && f.stale(at, from)
}

// ends reads the two ends of one direction of a connection.
func ends(tuple []byte, v6 bool) (source, target netip.AddrPort, tcp bool) {
	sourceIP := uint16(1) // CTA_IP_V4_SRC, then _DST
	if v6 {
		sourceIP = 3 // CTA_IP_V6_SRC
	}
	var addrs [2]netip.Addr
	var ports [2]uint16
	parts, err := nl.ParseRouteAttr(tuple)
	if err != nil {
		return source, target, false
	}
	for _, part := range parts {
		fields, err := nl.ParseRouteAttr(part.Value)
		if err != nil {
			return source, target, false
		}
		for _, one := range fields {
			kind := one.Attr.Type
			switch part.Attr.Type &^ unix.NLA_F_NESTED {
			case ctaTupleIP:
				if kind == sourceIP || kind == sourceIP+1 {
					addrs[kind-sourceIP], _ = netip.AddrFromSlice(one.Value)
				}
			case ctaTupleProtocol:
				switch {
				case kind == ctaProtocolNumber && len(one.Value) > 0:
					tcp = one.Value[0] == unix.IPPROTO_TCP
				case (kind == ctaSourcePort || kind == ctaTargetPort) && len(one.Value) == 2:
					ports[kind-ctaSourcePort] = binary.BigEndian.Uint16(one.Value)
				}
			}
		}
	}
	return netip.AddrPortFrom(addrs[0], ports[0]), netip.AddrPortFrom(addrs[1], ports[1]), tcp
}
