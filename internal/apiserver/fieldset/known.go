// SPDX-License-Identifier: Apache-2.0

package fieldset

import (
	"strings"
	"sync"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// knownBytes bounds the encodings whose decoded form a plan remembers. A decoded
// set takes some ten times as much.
const knownBytes = 128 << 10

// known remembers decoded sets of fields by their encoding: the objects of a kind
// are mostly stamped out of few templates by few managers. It holds two
// generations, the older of which is dropped when the younger is full.
type known struct {
	mu         sync.Mutex
	young, old map[string]*decoded
	bytes      int
}

// decoded is a set of fields. It is immutable.
type decoded struct {
	fields *fieldpath.Set
	raw    []byte // as the library encodes it
	fits   bool   // nothing of it is at odds with the schema
}

// decode returns what raw encodes. ok is false where the library must see to it.
func (k *known) decode(p *Plan, raw string) (fields *fieldpath.Set, canonical []byte, ok bool) {
	k.mu.Lock()
	d := k.young[raw]
	if d == nil {
		if d = k.old[raw]; d != nil {
			k.keep(raw, d)
		}
	}
	k.mu.Unlock()
	if d == nil {
		d = p.decode(raw)
		k.mu.Lock()
		k.keep(raw, d)
		k.mu.Unlock()
	}
	return d.fields, d.raw, d.fits
}

// keep remembers d; mu is held.
func (k *known) keep(raw string, d *decoded) {
	if len(raw) > knownBytes/8 || k.young[raw] != nil {
		return
	}
	if k.young == nil || k.bytes+len(raw) > knownBytes/2 {
		k.young, k.old, k.bytes = map[string]*decoded{}, k.young, 0
	}
	k.young[strings.Clone(raw)] = d
	k.bytes += len(raw)
}

func (p *Plan) decode(raw string) *decoded {
	fields := fieldpath.NewSet()
	if err := fields.FromJSON(strings.NewReader(raw)); err != nil {
		return &decoded{}
	}
	changed, err := typed.ReconcileFieldSetWithSchema(fields, p.none)
	if err != nil || changed != nil {
		return &decoded{}
	}
	canonical, err := fields.ToJSON()
	if err != nil {
		return &decoded{}
	}
	return &decoded{fields, canonical, true}
}
