// SPDX-License-Identifier: Apache-2.0

package alloc

import (
	"context"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"kaji/internal/apiserver/object"
	"kaji/internal/store"
)

// orphanAge is how old an IPAddress without a Service must be to be removed:
// another server's cache may lag.
const orphanAge = time.Minute

// Repair makes what is recorded as taken equal to what Services have. Nothing
// that this server writes needs it; data that others left behind does. Commit
// writes a transaction's sides, or nothing when a guard fails.
func (a *Allocator) Repair(ctx context.Context, commit func(context.Context, object.Side) error) error {
	// What is taken is read before the Services: a guard then catches every
	// change in between.
	taken, err := a.bitmap(ctx)
	if err != nil {
		return err
	}
	if _, err := a.Cache.WaitNewest(ctx); err != nil {
		return err
	}
	kind := a.Kinds.Kind(corev1.SchemeGroupVersion.WithKind("Service"))
	if kind == nil {
		return nil
	}
	snapshot, err := a.Cache.Snapshot(ctx, kind.Kind)
	if err != nil {
		return err
	}
	wanted := &bitmap{PortRange: a.Ports, bits: new(big.Int), revision: taken.revision}
	owners := map[string]*corev1.Service{}
	for e := range snapshot.All("", "") {
		s := e.Object.(*corev1.Service)
		for port := range portsOf(s) {
			wanted.set(port, true)
		}
		for _, ip := range held(s) {
			owners[canonical(ip)] = s
		}
	}
	if wanted.bits.Cmp(taken.bits) != 0 {
		var side object.Side
		if err := a.putBitmap(&side, wanted); err != nil {
			return err
		}
		if err := commit(ctx, side); err != nil {
			return fmt.Errorf("repair node ports: %w", err)
		}
	}
	return a.repairAddresses(ctx, owners, commit)
}

// repairAddresses creates missing IPAddresses and removes those left over.
func (a *Allocator) repairAddresses(ctx context.Context, owners map[string]*corev1.Service, commit func(context.Context, object.Side) error) error {
	kind := a.ipAddresses()
	if kind == nil {
		return nil
	}
	snapshot, err := a.Cache.Snapshot(ctx, kind.Kind)
	if err != nil {
		return err
	}
	for e := range snapshot.All("", "") {
		ip := e.Object.(*networkingv1.IPAddress)
		_, owned := owners[ip.Name]
		delete(owners, ip.Name)
		if owned || ip.Labels[networkingv1.LabelManagedBy] != managedBy || time.Since(ip.CreationTimestamp.Time) < orphanAge {
			continue
		}
		side := object.Side{
			Guards: []store.Guard{{Key: e.Key, ModRevision: e.Revision}},
			Ops:    []store.Op{{Key: e.Key, Delete: true}},
		}
		if err := commit(ctx, side); err != nil {
			return fmt.Errorf("remove IPAddress %s: %w", ip.Name, err)
		}
	}
	for text, s := range owners {
		addr, err := netip.ParseAddr(text)
		if err != nil || !slices.Contains(a.configured(), familyOf(addr)) {
			continue
		}
		var side object.Side
		a.claim(&side, s, addr)
		if err := commit(ctx, side); err != nil {
			return fmt.Errorf("create IPAddress %s: %w", text, err)
		}
	}
	return nil
}
