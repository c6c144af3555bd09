// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Direction is the side of a pod a rule is about.
type Direction int

// The directions.
const (
	Ingress Direction = iota
	Egress
)

// String is "ingress" or "egress".
func (d Direction) String() string { return [...]string{"ingress", "egress"}[d] }

// Rule allows packets whose peer is in a set, at a range of ports. What no rule
// of a chain allows is dropped.
type Rule struct {
	// Set holds the peer; empty is any peer. Of a set of Endpoints, protocol
	// and port match too and the fields below are zero.
	Set       string
	Endpoints bool
	// Protocol is empty for all; then the ports mean nothing.
	Protocol    corev1.Protocol
	First, Last uint16
}

// chain is a list of rules that some pods of the node share.
type chain struct {
	direction Direction
	rules     []Rule
	contents  []*content
	refs      int
	written   bool
}

// isolation is what policies make of a pod of the node.
type isolation struct {
	addresses []netip.Addr
	chains    [2]string // empty where the pod is not isolated
}

// isolate brings the chains of a pod in line; nil is one that is gone.
func (p *Plan) isolate(key Key, now *pod) {
	var want *isolation
	if now != nil && now.local {
		want = &isolation{addresses: now.addresses}
		for d := range p.directions {
			want.chains[d] = p.chainFor(now, Direction(d))
		}
	}
	if old := p.local[key]; old != nil {
		p.let(key, old, -1)
		delete(p.local, key)
	}
	if want != nil {
		p.let(key, want, 1)
		p.local[key] = want
	}
}

// let counts the chains of a pod and hangs its addresses to them, or undoes it.
func (p *Plan) let(key Key, i *isolation, n int) {
	for d, name := range i.chains {
		if name == "" {
			continue
		}
		p.chains[name].refs += n
		for _, addr := range i.addresses {
			if n > 0 {
				p.directions[d].hold(addr, key, name)
			} else {
				p.directions[d].release(addr, key)
			}
		}
	}
}

// chainFor returns the chain of a pod in a direction, made when it is new; it
// is empty when no policy isolates the pod.
func (p *Plan) chainFor(o *pod, d Direction) string {
	c := &chain{direction: d}
	isolated := false
	for _, policy := range p.policies[o.key.Namespace] {
		if !policy.isolates[d] || !policy.pods.Matches(o.labels) {
			continue
		}
		isolated = true
		for _, r := range policy.rules[d] {
			c.allow(r, o, d)
		}
	}
	if !isolated {
		return ""
	}
	slices.SortFunc(c.rules, func(a, b Rule) int { return strings.Compare(a.identity(), b.identity()) })
	c.rules = slices.Compact(c.rules)
	name := d.String() + "-" + digest(fmt.Sprint(c.rules))
	if p.chains[name] == nil {
		p.chains[name] = c
		for _, content := range c.contents {
			p.acquire(content)
		}
	}
	return name
}

func (r Rule) identity() string { return fmt.Sprint(r) }

// digest is short enough for a name and too long to be forged.
func digest(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s)))[:32] }

// allow adds a policy's rule as it is for one pod.
func (c *chain) allow(r rule, o *pod, d Direction) {
	if r.ports == nil {
		for _, set := range c.peers(r.peers) {
			c.rules = append(c.rules, Rule{Set: set})
		}
		return
	}
	for _, port := range r.ports {
		if port.name != "" && d == Egress {
			id := c.need(&content{kind: Endpoints, peers: r.peers, port: port})
			c.rules = append(c.rules, Rule{Set: id, Endpoints: true})
			continue
		}
		for _, n := range numbers(port, o) {
			for _, set := range c.peers(r.peers) {
				c.rules = append(c.rules, Rule{Set: set, Protocol: port.protocol, First: n.first, Last: n.last})
			}
		}
	}
}

// numbers resolves a port by the pod that listens.
func numbers(p port, o *pod) []port {
	if p.name == "" {
		return []port{p}
	}
	var out []port
	for _, named := range o.ports {
		if named.name == p.name && named.protocol == p.protocol {
			out = append(out, port{protocol: p.protocol, first: named.port, last: named.port})
		}
	}
	return out
}

// peers returns the sets that hold peers: one for all blocks together, one for
// each selector. An empty name is everybody.
func (c *chain) peers(all []peer) []string {
	if all == nil {
		return []string{""}
	}
	var blocks []Range
	var out []string
	for _, p := range all {
		if p.block != nil {
			blocks = append(blocks, blockRanges(p.block)...)
			continue
		}
		out = append(out, c.need(&content{kind: Addresses, peers: []peer{p}}))
	}
	if len(blocks) > 0 {
		out = append(out, c.need(&content{kind: Ranges, ranges: merge(blocks)}))
	}
	return out
}

// need notes a content as needed, once, and returns its name.
func (c *chain) need(what *content) string {
	switch what.kind {
	case Addresses:
		what.id = "pods-" + digest(identityOf(what.peers))
	case Ranges:
		what.id = "blocks-" + digest(fmt.Sprint(what.ranges))
	case Endpoints:
		what.id = "ports-" + digest(fmt.Sprintf("%s %q %s", what.port.protocol, what.port.name, identityOf(what.peers)))
	}
	if !slices.ContainsFunc(c.contents, func(o *content) bool { return o.id == what.id }) {
		c.contents = append(c.contents, what)
	}
	return what.id
}
