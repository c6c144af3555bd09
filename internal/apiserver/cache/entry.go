// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"strconv"
	"sync"
	"sync/atomic"

	"kaji/internal/api"
)

// Entry is one state of one object. It is immutable and shared by everything
// in the process that reads the object.
type Entry struct {
	// Key is the store key.
	Key string
	// Object is the decoded hub object with its resourceVersion set. What a kind
	// is Slim of is left out of it; Whole has that too.
	Object api.Object
	// Revision is the store revision of this state.
	Revision int64

	packed  Packed // nil when Object is whole
	encoded atomic.Pointer[encoding]
	making  sync.Mutex // held while an encoding is made
	pool    *pool
}

// Packed is the whole of an object of which an entry holds less.
type Packed interface {
	// Whole returns it, new at each call, maybe without its resourceVersion.
	Whole() api.Object
}

// Packed returns what Whole is made of, nil where that is Object.
func (e *Entry) Packed() Packed { return e.packed }

// Whole returns the object with everything that was stored. It must not be
// modified.
func (e *Entry) Whole() api.Object {
	if e.packed == nil {
		return e.Object
	}
	obj := e.packed.Whole()
	obj.SetResourceVersion(strconv.FormatInt(e.Revision, 10))
	return obj
}

// Slim says whether Object is less than Whole, which then takes some time.
func (e *Entry) Slim() bool { return e.packed != nil }

// encoding is one kept encoding of an entry, or the object in another version,
// a link of a short list.
type encoding struct {
	form   string
	data   []byte
	object api.Object
	next   *encoding
}

// Encoded returns the object's encoding in a form (version and media type, as
// the caller names them), calling make when it is not kept already. The bytes
// are shared and must not be modified. A nil result of make is not kept.
// Encodings are dropped when they were not asked for during a while.
func (e *Entry) Encoded(form string, make func() []byte) []byte {
	if data := e.Kept(form); data != nil {
		return data
	}
	// A thousand watchers wake for one event: one of them encodes.
	e.making.Lock()
	defer e.making.Unlock()
	if data := e.Kept(form); data != nil {
		return data
	}
	data := make()
	if data != nil {
		e.keep(&encoding{form: form, data: data}, len(data))
	}
	return data
}

// keep keeps what was made while making was held, if there is room for it.
func (e *Entry) keep(made *encoding, size int) {
	if e.pool != nil && e.pool.admit(e, size) {
		made.next = e.encoded.Load()
		e.encoded.Store(made)
	}
}

func (e *Entry) find(form string) *encoding {
	for at := e.encoded.Load(); at != nil; at = at.next {
		if at.form == form {
			return at
		}
	}
	return nil
}

// Kept returns the encoding in a form if it is kept, nil when not.
func (e *Entry) Kept(form string) []byte {
	if at := e.find(form); at != nil {
		return at.data
	}
	return nil
}

// Converted returns the object in another version if it is kept, nil when not.
// It is shared and must not be modified.
func (e *Entry) Converted(version string) api.Object {
	if at := e.find(convertedForm + version); at != nil {
		return at.object
	}
	return nil
}

// convertedForm is what the names of versions are kept under.
const convertedForm = "converted/"

// Convert returns the object in another version, calling make when it is not
// kept already. It is kept as long as an encoding of its size, in bytes.
func (e *Entry) Convert(version string, make func() (obj api.Object, size int, err error)) (api.Object, error) {
	if obj := e.Converted(version); obj != nil {
		return obj, nil
	}
	e.making.Lock()
	defer e.making.Unlock()
	if obj := e.Converted(version); obj != nil {
		return obj, nil
	}
	obj, size, err := make()
	if err == nil {
		e.keep(&encoding{form: convertedForm + version, object: obj}, size)
	}
	return obj, err
}

// Limits of the kept encodings: of one, and of all together.
const (
	maxEncoding  = 2 << 20
	maxEncodings = 96 << 20
)

// pool remembers which entries keep encodings, to bound them and to drop them
// when they have grown old. It holds two generations; the older one is dropped
// at each sweep.
type pool struct {
	mu         sync.Mutex
	young, old []*Entry
	youngBytes int
	oldBytes   int
}

// admit accounts for an encoding about to be kept by e, or refuses it.
func (p *pool) admit(e *Entry, size int) bool {
	if size > maxEncoding {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.youngBytes+p.oldBytes+size > maxEncodings {
		return false
	}
	p.youngBytes += size
	p.young = append(p.young, e)
	return true
}

// sweep drops the encodings made before the last sweep.
func (p *pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.old {
		e.encoded.Store(nil)
	}
	p.old, p.oldBytes = p.young, p.youngBytes
	p.young, p.youngBytes = nil, 0
}
