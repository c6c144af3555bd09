// SPDX-License-Identifier: Apache-2.0

package alloc

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/apiserver/object"
)

// addresses makes sure that the Service has an address of each family it
// wants, and gives back what it no longer wants.
func (a *Allocator) addresses(ctx context.Context, side *object.Side, s, before *corev1.Service) error {
	old := held(before)
	if !hasClusterIP(s) || headless(s) || len(a.Ranges) == 0 {
		a.releaseAll(side, old, nil)
		return nil
	}
	if before == nil && len(s.Spec.ClusterIPs) == 0 && s.Spec.ClusterIP != "" {
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
	for i, family := range s.Spec.IPFamilies {
		if i < len(s.Spec.ClusterIPs) && s.Spec.ClusterIPs[i] != "" {
			ip := s.Spec.ClusterIPs[i]
			if slices.Contains(old, ip) {
				continue
			}
			addr, err := netip.ParseAddr(ip)
			if err != nil {
				continue // validation says so
			}
			if err := a.take(ctx, side, s, addr.Unmap()); err != nil {
				return invalid(s, field.Invalid(field.NewPath("spec", "clusterIPs"), s.Spec.ClusterIPs, fmt.Sprintf("failed to allocate IP %v: %v", ip, err)))
			}
			continue
		}
		addr, err := a.pick(ctx, side, family)
		if err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP: %v", err))
		}
		if s.Name == "" {
			return nameless(s, addr)
		}
		a.claim(side, s, addr)
		if i < len(s.Spec.ClusterIPs) {
			s.Spec.ClusterIPs[i] = addr.String()
		} else {
			s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, addr.String())
		}
	}
	if len(s.Spec.ClusterIPs) > 0 && s.Spec.ClusterIP == "" {
		s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	}
	a.releaseAll(side, old, s.Spec.ClusterIPs)
	return nil
}

// nameless refuses a Service that no address can refer to.
func nameless(s *corev1.Service, addr netip.Addr) error {
	return invalid(s, field.Invalid(field.NewPath("spec", "clusterIPs"), []string{""}, fmt.Sprintf(
		"failed to allocate IP: IPAddress.networking.k8s.io %q is invalid: spec.parentRef.name: Required value", addr)))
}

// releaseAll gives back the addresses of old that are not kept.
func (a *Allocator) releaseAll(side *object.Side, old, kept []string) {
	for _, ip := range old {
		if !slices.Contains(kept, ip) {
			a.release(side, ip)
		}
	}
}

// ranges are those of a family that addresses may be taken from: those of the
// ServiceCIDRs that are ready, or the configured one while there are none.
func (a *Allocator) ranges(ctx context.Context, family corev1.IPFamily) ([]netip.Prefix, error) {
	var found []netip.Prefix
	add := func(r netip.Prefix) {
		if familyOf(r.Addr()) == family && !slices.Contains(found, r) {
			found = append(found, r)
		}
	}
	for _, r := range a.Ranges {
		add(r.Masked())
	}
	served := a.Kinds.Kind(networkingv1.SchemeGroupVersion.WithKind("ServiceCIDR"))
	if served == nil {
		return found, nil
	}
	snapshot, err := a.Cache.Snapshot(ctx, served.Kind)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	for e := range snapshot.All("", "") {
		cidr := e.Object.(*networkingv1.ServiceCIDR)
		if !usable(cidr) {
			continue
		}
		for _, text := range cidr.Spec.CIDRs {
			if r, err := netip.ParsePrefix(text); err == nil {
				add(r.Masked())
			}
		}
	}
	return found, nil
}

func usable(cidr *networkingv1.ServiceCIDR) bool {
	if cidr.DeletionTimestamp != nil {
		return false
	}
	for _, c := range cidr.Status.Conditions {
		if c.Type == networkingv1.ServiceCIDRConditionReady {
			return c.Status == metav1.ConditionTrue
		}
	}
	return true
}

// free says whether nobody has an address.
func (a *Allocator) free(ctx context.Context, side *object.Side, addr netip.Addr) (bool, error) {
	for _, n := range side.New {
		if n.Object.GetName() == addr.String() {
			return false, nil
		}
	}
	kind := a.ipAddresses()
	if kind == nil {
		return true, nil
	}
	_, taken, err := a.Cache.Get(ctx, kind.Kind, "", addr.String())
	return !taken, err
}

// take claims an address that was asked for.
func (a *Allocator) take(ctx context.Context, side *object.Side, s *corev1.Service, addr netip.Addr) error {
	ranges, err := a.ranges(ctx, familyOf(addr))
	if err != nil {
		return err
	}
	if len(ranges) == 0 {
		return errFull
	}
	inside := slices.ContainsFunc(ranges, func(r netip.Prefix) bool {
		p := poolOf(r)
		return r.Contains(addr) && addr.Compare(p.first) >= 0 && (p.last == netip.Addr{} || addr.Compare(p.last) <= 0)
	})
	if !inside {
		return fmt.Errorf("the provided IP (%v) is not in the valid range. The range of valid IPs is %s", addr, ranges[0])
	}
	free, err := a.free(ctx, side, addr)
	if err != nil {
		return err
	}
	if !free {
		return errAllocated
	}
	a.claim(side, s, addr)
	return nil
}

// pool is a range as addresses are given from it: without network and, for
// IPv4, broadcast address; the lower band is left to Services that ask for an
// address as long as there are others (KEP-3070).
type pool struct {
	first, last netip.Addr
	size        uint64
	band        uint64
}

// maxPool bounds what is used of huge IPv6 ranges.
const maxPool = 1 << 62

func poolOf(r netip.Prefix) pool {
	bits := r.Addr().BitLen() - r.Bits()
	p := pool{first: r.Addr().Next()}
	size := uint64(maxPool)
	if bits < 62 {
		size = 1 << bits
	}
	if size > 2 {
		size-- // the network address
		if r.Addr().Is4() {
			size-- // the broadcast address
		}
		p.last = add(p.first, size-1)
	} else {
		p.first = r.Addr()
		p.last = add(p.first, size-1)
	}
	p.size = size
	if size >= 16 {
		p.band = min(max(size/16, 16), 256)
	}
	return p
}

// add returns the address n after addr.
func add(addr netip.Addr, n uint64) netip.Addr {
	raw := addr.As16()
	sum := new(big.Int).SetBytes(raw[:])
	var delta [8]byte
	binary.BigEndian.PutUint64(delta[:], n)
	sum.Add(sum, new(big.Int).SetBytes(delta[:]))
	var out [16]byte
	sum.FillBytes(out[:])
	return netip.AddrFrom16(out).Unmap()
}

// pick returns a free address of a family.
func (a *Allocator) pick(ctx context.Context, side *object.Side, family corev1.IPFamily) (netip.Addr, error) {
	ranges, err := a.ranges(ctx, family)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, r := range ranges {
		p := poolOf(r)
		for _, part := range [][2]uint64{{p.band, p.size}, {0, p.band}} {
			addr, ok, err := a.search(ctx, side, p, part[0], part[1])
			if err != nil || ok {
				return addr, err
			}
		}
	}
	return netip.Addr{}, errFull
}

// search looks for a free address at [from, to) of a pool, from a random place
// on.
func (a *Allocator) search(ctx context.Context, side *object.Side, p pool, from, to uint64) (netip.Addr, bool, error) {
	if to <= from {
		return netip.Addr{}, false, nil
	}
	n := to - from
	start := rand.Uint64N(n)
	for i := range n {
		addr := add(p.first, from+(start+i)%n)
		free, err := a.free(ctx, side, addr)
		if err != nil || free {
			return addr, free, err
		}
		if err := ctx.Err(); err != nil {
			return netip.Addr{}, false, err
		}
	}
	return netip.Addr{}, false, nil
}
