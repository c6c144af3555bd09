// SPDX-License-Identifier: Apache-2.0

package proxy

import "kaji/internal/proxy/plan"

// owners knows which Service each frontend was given to. Two Services may name
// the same external address; the first one keeps it until it lets go.
type owners struct {
	frontends map[plan.Frontend]*ownership
	wanted    map[key]map[plan.Frontend]struct{}
}

type ownership struct {
	owner   key // the zero key once it was given up
	target  plan.Target
	waiting map[key]struct{}
}

func newOwners() *owners {
	return &owners{frontends: map[plan.Frontend]*ownership{}, wanted: map[key]map[plan.Frontend]struct{}{}}
}

// claim replaces all a Service wants and returns what to write: its frontends
// that are new or changed, and those it gave up.
func (o *owners) claim(k key, want map[plan.Frontend]plan.Target) (set map[plan.Frontend]plan.Target, gone []plan.Frontend) {
	for f := range o.wanted[k] {
		if _, still := want[f]; still {
			continue
		}
		own := o.frontends[f]
		delete(own.waiting, k)
		if own.owner == k {
			gone = append(gone, f)
			own.owner = key{}
		}
		if own.owner == (key{}) && len(own.waiting) == 0 {
			delete(o.frontends, f)
		}
	}
	set = map[plan.Frontend]plan.Target{}
	wanted := make(map[plan.Frontend]struct{}, len(want))
	for f, t := range want {
		wanted[f] = struct{}{}
		own := o.frontends[f]
		if own == nil {
			own = &ownership{waiting: map[key]struct{}{}}
			o.frontends[f] = own
		}
		switch {
		case own.owner == (key{}):
			own.owner, own.target = k, t
			delete(own.waiting, k)
			set[f] = t
		case own.owner != k:
			own.waiting[k] = struct{}{}
		case !own.target.Equal(t):
			own.target = t
			set[f] = t
		}
	}
	if o.wanted[k] = wanted; len(wanted) == 0 {
		delete(o.wanted, k)
	}
	return set, gone
}

// waiting returns who wants a frontend that was given up.
func (o *owners) waiting(f plan.Frontend) []key {
	var keys []key
	if own := o.frontends[f]; own != nil {
		for k := range own.waiting {
			keys = append(keys, k)
		}
	}
	return keys
}

// targets returns what a Service has now.
func (o *owners) targets(k key) map[plan.Frontend]plan.Target {
	out := map[plan.Frontend]plan.Target{}
	for f := range o.wanted[k] {
		if own := o.frontends[f]; own.owner == k {
			out[f] = own.target
		}
	}
	return out
}
