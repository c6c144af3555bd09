// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// model is a kernel in memory: it takes deltas as strictly as the real one and
// answers what a packet meets.
type model struct {
	t        testing.TB
	sets     map[string]map[Element]bool
	ranges   map[string][]Range
	chains   map[string]NewChain
	verdicts [2]map[netip.Addr]string
	hold     [2]bool
}

func newModel(t testing.TB) *model {
	return &model{t: t, sets: map[string]map[Element]bool{}, ranges: map[string][]Range{}, chains: map[string]NewChain{},
		verdicts: [2]map[netip.Addr]string{{}, {}}}
}

func (m *model) demand(ok bool, format string, args ...any) {
	m.t.Helper()
	if !ok {
		m.t.Fatalf(format, args...)
	}
}

func (m *model) apply(d Delta) {
	m.t.Helper()
	for _, s := range d.NewSets {
		m.demand(m.sets[s.Name] == nil, "set %s exists", s.Name)
		m.sets[s.Name], m.ranges[s.Name] = map[Element]bool{}, s.Ranges
		for _, e := range s.Elements {
			m.sets[s.Name][e] = true
		}
	}
	for name, elements := range d.Remove {
		for _, e := range elements {
			m.demand(m.sets[name][e], "%v is not in %s", e, name)
			delete(m.sets[name], e)
		}
	}
	for name, elements := range d.Add {
		for _, e := range elements {
			m.demand(m.sets[name] != nil && !m.sets[name][e], "%v is in %s", e, name)
			m.sets[name][e] = true
		}
	}
	for _, c := range d.NewChains {
		_, exists := m.chains[c.Name]
		m.demand(!exists, "chain %s exists", c.Name)
		m.chains[c.Name] = c
	}
	for direction, verdicts := range d.Verdicts {
		for _, v := range verdicts {
			m.demand(m.verdicts[direction][v.Addr] == v.Old, "%s of %s leads to %q, not to %q", Direction(direction), v.Addr, m.verdicts[direction][v.Addr], v.Old)
			if m.verdicts[direction][v.Addr] = v.New; v.New == "" {
				delete(m.verdicts[direction], v.Addr)
			}
		}
	}
	for _, name := range d.OldChains {
		delete(m.chains, name)
	}
	for _, name := range d.OldSets {
		m.demand(m.sets[name] != nil, "set %s does not exist", name)
		delete(m.sets, name)
		delete(m.ranges, name)
	}
	m.hold = d.Hold
	m.whole()
}

// whole demands that everything named is there and everything there is named.
func (m *model) whole() {
	m.t.Helper()
	sets, chains := map[string]bool{Local: true}, map[string]bool{}
	for d, verdicts := range m.verdicts {
		for addr, name := range verdicts {
			chain, ok := m.chains[name]
			m.demand(ok && chain.Direction == Direction(d), "%s leads to the missing chain %s", addr, name)
			chains[name] = true
		}
	}
	for name, c := range m.chains {
		for _, r := range c.Rules {
			m.demand(r.Set == "" || m.sets[r.Set] != nil, "chain %s names the missing set %s", name, r.Set)
			sets[r.Set] = true
		}
	}
	for name := range m.sets {
		m.demand(sets[name], "nobody uses set %s", name)
	}
	for name, c := range m.chains {
		// A pod that waits for its address keeps its chain.
		m.demand(chains[name] || m.hold[c.Direction], "nobody comes to chain %s", name)
	}
}

// equal demands that another model holds the same.
func (m *model) equal(o *model) {
	m.t.Helper()
	m.demand(maps.EqualFunc(m.sets, o.sets, maps.Equal) && maps.EqualFunc(m.chains, o.chains, func(a, b NewChain) bool { return slices.Equal(a.Rules, b.Rules) }) &&
		maps.Equal(m.verdicts[0], o.verdicts[0]) && maps.Equal(m.verdicts[1], o.verdicts[1]) && m.hold == o.hold,
		"the deltas made %v, a new start makes %v", m, o)
}

// packet is the first of a connection.
type packet struct {
	from, to netip.Addr
	protocol corev1.Protocol
	port     uint16
}

// passes traces a packet through the forward hook.
func (m *model) passes(p packet) bool {
	if p.from == p.to {
		return true
	}
	out, isolated := m.verdicts[Egress][p.from]
	if isolated && !m.allows(out, p.to, p) {
		return false
	}
	in, isolated := m.verdicts[Ingress][p.to]
	return !isolated || m.allows(in, p.from, p)
}

func (m *model) allows(chain string, peer netip.Addr, p packet) bool {
	return slices.ContainsFunc(m.chains[chain].Rules, func(r Rule) bool {
		switch {
		case r.Endpoints:
			return m.sets[r.Set][Element{p.to, p.protocol, p.port}]
		case r.Set != "" && !m.sets[r.Set][Element{Addr: peer}] &&
			!slices.ContainsFunc(m.ranges[r.Set], func(r Range) bool { return r.Contains(peer) }):
			return false
		}
		return r.Protocol == "" || r.Protocol == p.protocol && r.First <= p.port && p.port <= r.Last
	})
}

// cluster has namespaces x, y, z with pods a, b, c, as upstream's tests have;
// all on one node but those of z.
type cluster struct {
	*testing.T
	plan  *Plan
	model *model
	pods  []string
	addrs map[string]netip.Addr
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{T: t, plan: New("here"), model: newModel(t), addrs: map[string]netip.Addr{}}
	for i, ns := range []string{"x", "y", "z"} {
		c.plan.SetNamespace(namespace(ns, map[string]string{"ns": ns}))
		for j, name := range []string{"a", "b", "c"} {
			c.addrs[ns+"/"+name] = netip.MustParseAddr(fmt.Sprintf("10.244.%d.%d", i, j+1))
			c.pods = append(c.pods, ns+"/"+name)
			c.plan.SetPod(c.pod(ns, name, nil))
		}
	}
	c.addrs["world"] = netip.MustParseAddr("192.0.2.1")
	c.pods = append(c.pods, "world")
	c.model.apply(c.plan.All())
	return c
}

func namespace(name string, labels map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

// pod serves 80 over TCP and UDP and 81 over TCP; in pods c the name "web"
// means 81, in the others 80.
func (c *cluster) pod(ns, name string, change func(*corev1.Pod)) *corev1.Pod {
	web := int32(80)
	if name == "c" {
		web = 81
	}
	node := "here"
	if ns == "z" {
		node = "there"
	}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{"pod": name}},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Ports: []corev1.ContainerPort{
			{Name: "web", ContainerPort: web, Protocol: corev1.ProtocolTCP}, {Name: "dns", ContainerPort: 80, Protocol: corev1.ProtocolUDP}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: c.addrs[ns+"/"+name].String(), PodIPs: []corev1.PodIP{{IP: c.addrs[ns+"/"+name].String()}}}}
	if change != nil {
		change(p)
	}
	return p
}

// take applies what changed, and compares with a start from nothing.
func (c *cluster) take() {
	c.Helper()
	c.model.apply(c.plan.Take())
	fresh := newModel(c.T)
	fresh.apply(c.plan.All())
	c.model.equal(fresh)
}

func (c *cluster) policy(ns, name string, spec networkingv1.NetworkPolicySpec) {
	c.Helper()
	c.plan.SetPolicy(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: spec})
	c.take()
}

// expect asks every pod for every pod at every port.
func (c *cluster) expect(allowed func(from, to string, protocol corev1.Protocol, port uint16) bool) {
	c.Helper()
	for _, from := range c.pods {
		for _, to := range c.pods {
			for _, at := range []struct {
				protocol corev1.Protocol
				port     uint16
			}{{corev1.ProtocolTCP, 80}, {corev1.ProtocolTCP, 81}, {corev1.ProtocolUDP, 80}, {corev1.ProtocolSCTP, 80}} {
				want := from == to || allowed(from, to, at.protocol, at.port)
				if got := c.model.passes(packet{c.addrs[from], c.addrs[to], at.protocol, at.port}); got != want {
					c.Errorf("%s to %s at %s %d: %v, want %v", from, to, at.protocol, at.port, got, want)
				}
			}
		}
	}
}
