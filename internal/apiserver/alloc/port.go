// SPDX-License-Identifier: Apache-2.0

package alloc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/object"
	"kaji/internal/store"
)

// portsKey is where upstream keeps the bitmap of node ports.
const portsKey = "/registry/ranges/servicenodeports"

// portSet are node ports with what takes them.
type portSet map[int32]bool

// portsOf returns the node ports a Service has.
func portsOf(s *corev1.Service) portSet {
	set := portSet{}
	if s == nil || !hasPorts(s) {
		return set
	}
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			set[p.NodePort] = true
		}
	}
	if s.Spec.HealthCheckNodePort != 0 {
		set[s.Spec.HealthCheckNodePort] = true
	}
	return set
}

// hasPorts says whether Services of this type may have node ports.
func hasPorts(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer
}

// wantsPorts says whether each port of the Service gets a node port.
func wantsPorts(s *corev1.Service) bool {
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		return s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts
	}
	return s.Spec.Type == corev1.ServiceTypeNodePort
}

func wantsHealthCheck(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// ports gives the Service its node ports, which after a dry run are only
// likenesses.
func (a *Allocator) ports(ctx context.Context, side *object.Side, s, before *corev1.Service, dryRun bool) error {
	old := portsOf(before)
	if !hasPorts(s) {
		return a.changePorts(ctx, side, nil, old)
	}
	var taken *bitmap // read when first needed
	load := func() (err error) {
		if taken == nil {
			if taken, err = a.bitmap(ctx); err == nil && dryRun {
				taken.given = portSet{}
			}
		}
		return err
	}
	own := portSet{}
	// Ports of one number and different protocols share a node port.
	shared := map[int32]map[int32]corev1.Protocol{}
	claim := func(port int32) error {
		if old[port] || own[port] {
			own[port] = true
			return nil
		}
		if err := load(); err != nil {
			return err
		}
		if err := taken.take(port); err != nil {
			return err
		}
		own[port] = true
		return nil
	}
	var open []int
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.NodePort == 0 {
			open = append(open, i)
			continue
		}
		if err := claim(p.NodePort); err != nil {
			if apierrors.IsInternalError(err) {
				return err
			}
			path := field.NewPath("spec", "ports").Index(i).Child("nodePort")
			return invalid(s, field.Invalid(path, p.NodePort, err.Error()))
		}
		remember(shared, p)
	}
	if wantsPorts(s) {
		for _, i := range open {
			p := &s.Spec.Ports[i]
			if node, ok := share(shared, p); ok {
				p.NodePort = node
				remember(shared, p)
				continue
			}
			if err := load(); err != nil {
				return err
			}
			port, err := taken.pick()
			if err != nil {
				return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %v", err))
			}
			p.NodePort = port
			own[port] = true
			remember(shared, p)
		}
	}
	if err := a.healthCheck(s, claim, load, func() (int32, error) { return taken.pick() }, own); err != nil {
		return err
	}
	return a.changePorts(ctx, side, own, old)
}

// healthCheck settles healthCheckNodePort.
func (a *Allocator) healthCheck(s *corev1.Service, claim func(int32) error, load func() error, pick func() (int32, error), own portSet) error {
	if !wantsHealthCheck(s) {
		return nil
	}
	if port := s.Spec.HealthCheckNodePort; port != 0 {
		if err := claim(port); err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate requested HealthCheck NodePort %v: %v", port, err))
		}
		return nil
	}
	if err := load(); err != nil {
		return err
	}
	port, err := pick()
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate a HealthCheck NodePort %v: %v", port, err))
	}
	s.Spec.HealthCheckNodePort = port
	own[port] = true
	return nil
}

func remember(shared map[int32]map[int32]corev1.Protocol, p *corev1.ServicePort) {
	if shared[p.Port] == nil {
		shared[p.Port] = map[int32]corev1.Protocol{}
	}
	shared[p.Port][p.NodePort] = p.Protocol
}

// share returns a node port that a port of the same number and another
// protocol has.
func share(shared map[int32]map[int32]corev1.Protocol, p *corev1.ServicePort) (int32, bool) {
	for node, protocol := range shared[p.Port] {
		if protocol != p.Protocol {
			return node, true
		}
	}
	return 0, false
}

// changePorts writes which ports are taken: now instead of old.
func (a *Allocator) changePorts(ctx context.Context, side *object.Side, now, old portSet) error {
	changed := false
	for port := range now {
		changed = changed || !old[port]
	}
	for port := range old {
		changed = changed || !now[port]
	}
	if !changed {
		return nil
	}
	m, err := a.bitmap(ctx)
	if err != nil {
		return err
	}
	for port := range old {
		m.set(port, false)
	}
	for port := range now {
		m.set(port, true)
	}
	return a.putBitmap(side, m)
}

// putBitmap writes which ports are taken, unless somebody else did since.
func (a *Allocator) putBitmap(side *object.Side, m *bitmap) error {
	value, err := codec.EncodeRaw(&corev1.RangeAllocation{Range: a.Ports.String(), Data: m.bits.Bytes()}, corev1.SchemeGroupVersion.WithKind("RangeAllocation"))
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	side.Guards = append(side.Guards, store.Guard{Key: portsKey, ModRevision: m.revision})
	side.Ops = append(side.Ops, store.Op{Key: portsKey, Value: value})
	return nil
}

var errTaken = errors.New("provided port is already allocated")

// bitmap is which ports are taken, as the store has it.
type bitmap struct {
	PortRange
	bits     *big.Int
	revision int64
	// given, unless nil, are the ports handed out by a dry run, which takes none.
	given portSet
}

// bitmap reads the ports that are taken.
func (a *Allocator) bitmap(ctx context.Context) (*bitmap, error) {
	kv, found, _, err := a.Store.Get(ctx, portsKey)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	m := &bitmap{PortRange: a.Ports, bits: new(big.Int), revision: kv.ModRevision}
	if !found {
		return m, nil
	}
	var stored corev1.RangeAllocation
	if err := codec.DecodeRaw(kv.Value, &stored); err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("decode %s: %w", portsKey, err))
	}
	if stored.Range == a.Ports.String() {
		m.bits.SetBytes(stored.Data)
	}
	return m, nil
}

func (m *bitmap) set(port int32, taken bool) {
	if int(port) < m.First || int(port) > m.Last {
		return
	}
	value := uint(0)
	if taken {
		value = 1
	}
	m.bits.SetBit(m.bits, int(port)-m.First, value)
}

func (m *bitmap) take(port int32) error {
	if m.given != nil {
		if m.given[port] || m.holds(port) {
			return errTaken
		}
		m.given[port] = true
		return nil
	}
	if int(port) < m.First || int(port) > m.Last {
		return fmt.Errorf("provided port is not in the valid range. The range of valid ports is %s", m.PortRange)
	}
	if m.holds(port) {
		return errTaken
	}
	m.set(port, true)
	return nil
}

func (m *bitmap) holds(port int32) bool {
	return int(port) >= m.First && int(port) <= m.Last && m.bits.Bit(int(port)-m.First) == 1
}

// dummyPort comes before the ports that a dry run answers with; they are outside
// the range, so that nobody takes them for theirs.
const dummyPort = 32768

// dummy is pick for a dry run.
func (m *bitmap) dummy() int32 {
	last := int32(dummyPort)
	if len(m.given) > 0 {
		last = slices.Max(slices.Collect(maps.Keys(m.given)))
	}
	m.given[last+1] = true
	return last + 1
}

// pick takes a free port: the lower band is left to Services that ask for a
// port as long as there are others (KEP-3668).
func (m *bitmap) pick() (int32, error) {
	if m.given != nil {
		return m.dummy(), nil
	}
	size := m.Last - m.First + 1
	band := 0
	if size >= 32 {
		band = min(max(size/32, 16), 128)
	}
	for _, part := range [][2]int{{band, size}, {0, band}} {
		n := part[1] - part[0]
		if n <= 0 {
			continue
		}
		start := rand.IntN(n)
		for i := range n {
			if bit := part[0] + (start+i)%n; m.bits.Bit(bit) == 0 {
				port := int32(m.First + bit)
				m.set(port, true)
				return port, nil
			}
		}
	}
	return 0, errFull
}
