// SPDX-License-Identifier: Apache-2.0

package servicelb

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"kaji/internal/controller/queue"
)

// ledger knows who has which address of the pools. The Services' status is what
// it is read from at the start; it is used by one goroutine.
type ledger struct {
	pools   []Pool
	holders map[netip.Addr][]want
	has     map[queue.Key][]netip.Addr
	// blocked says that an address cannot be given out: a node has it.
	blocked func(netip.Addr) bool
}

func newLedger(pools []Pool, blocked func(netip.Addr) bool) *ledger {
	return &ledger{pools: pools, holders: map[netip.Addr][]want{}, has: map[queue.Key][]netip.Addr{}, blocked: blocked}
}

// hold notes what a Service has already, where that is still possible.
func (l *ledger) hold(w want, addrs []netip.Addr) {
	for _, a := range addrs {
		if _, ok := poolOf(l.pools, a); ok && l.conflict(w, a) == "" {
			l.holders[a] = append(l.holders[a], w)
			l.has[w.key] = append(l.has[w.key], a)
		}
	}
}

// release gives back what a Service has; true says that it had something.
func (l *ledger) release(key queue.Key) bool {
	had := l.has[key]
	for _, a := range had {
		l.holders[a] = slices.DeleteFunc(l.holders[a], func(w want) bool { return w.key == key })
		if len(l.holders[a]) == 0 {
			delete(l.holders, a)
		}
	}
	delete(l.has, key)
	return len(had) > 0
}

// assign gives a Service an address of each of its families. It keeps those it
// has where they do.
func (l *ledger) assign(w want) ([]netip.Addr, error) {
	had := l.has[w.key]
	l.release(w.key)
	var out []netip.Addr
	var missing error
	for _, v6 := range w.v6 {
		a, err := l.choose(w, v6, had)
		if err != nil {
			missing = err
			continue
		}
		out = append(out, a)
	}
	if missing != nil && (w.required || len(out) == 0) {
		return nil, missing
	}
	l.hold(w, out)
	return out, nil
}

func (l *ledger) choose(w want, v6 bool, had []netip.Addr) (netip.Addr, error) {
	if a, ok := w.requested(v6); ok {
		if _, ok := poolOf(l.pools, a); !ok {
			return a, fmt.Errorf("the requested address %s is in none of the pools %s", a, names(l.pools))
		}
		if by := l.conflict(w, a); by != "" {
			return a, fmt.Errorf("the requested address %s is not free: %s", a, by)
		}
		return a, nil
	}
	pools := l.of(v6, w.reach)
	for _, a := range had {
		if _, ok := poolOf(pools, a); ok && l.conflict(w, a) == "" {
			return a, nil
		}
	}
	if a, ok := l.shared(w, pools); ok {
		return a, nil
	}
	for _, p := range pools {
		if a, ok := p.free(func(a netip.Addr) bool { return len(l.holders[a]) > 0 || l.blocked(a) }); ok {
			return a, nil
		}
	}
	if len(pools) == 0 {
		return netip.Addr{}, fmt.Errorf("no pool has addresses of family %s", map[bool]string{false: "IPv4", true: "IPv6"}[v6])
	}
	return netip.Addr{}, fmt.Errorf("no address is left in the pools %s", names(pools))
}

// shared finds an address whose holders would have the Service beside them.
func (l *ledger) shared(w want, pools []Pool) (found netip.Addr, ok bool) {
	if w.sharing == "" {
		return found, false
	}
	for a, all := range l.holders {
		if _, in := poolOf(pools, a); in && all[0].sharing == w.sharing && l.conflict(w, a) == "" && (!ok || a.Less(found)) {
			found, ok = a, true
		}
	}
	return found, ok
}

// of returns the pools of a family. Those for the wanted reach come first.
func (l *ledger) of(v6 bool, r reach) []Pool {
	var first, rest []Pool
	for _, p := range l.pools {
		switch {
		case p.first.Is6() != v6:
		case r == anybody || p.private() == (r == inside):
			first = append(first, p)
		default:
			rest = append(rest, p)
		}
	}
	return append(first, rest...)
}

// conflict says in plain words why a Service cannot have an address; it is
// empty when it can.
func (l *ledger) conflict(w want, a netip.Addr) string {
	if l.blocked(a) {
		return "it is a node's own"
	}
	for _, o := range l.holders[a] {
		if o.key == w.key {
			continue
		}
		if w.sharing == "" || w.sharing != o.sharing {
			return fmt.Sprintf("Service %s has it, with another sharing key or none", o.key)
		}
		if p := common(w.ports, o.ports); len(p) > 0 {
			return fmt.Sprintf("Service %s has its port %s", o.key, strings.Join(p, ", "))
		}
		// One node answers for an address: it must have endpoints of both.
		if (w.local || o.local) && w.selector != o.selector {
			return fmt.Sprintf("Service %s shares it, and with externalTrafficPolicy Local both must select the same pods", o.key)
		}
	}
	return ""
}

func common(a, b []port) []string {
	var out []string
	for _, p := range a {
		if slices.Contains(b, p) {
			out = append(out, p.String())
		}
	}
	return out
}
