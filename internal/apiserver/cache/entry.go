// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"sync"
	"sync/atomic"

	"kaji/internal/api"
)

// Entry is one state of one object. It is immutable and shared by everything
// in the process that reads the object.
type Entry struct {
	// Key is the store key.
	Key string
	// Object is the decoded hub object with its resourceVersion set.
	Object api.Object
	// Revision is the store revision of this state.
	Revision int64

	encoded atomic.Pointer[encoding]
	making  sync.Mutex // held while an encoding is made
	pool    *pool
}

// encoding is one kept encoding of an entry, a link of a short list.
type encoding struct {
	form string
	data []byte
	next *encoding
}

// Encoded returns the object's encoding in a form (version and media type, as
// the caller names them), calling make when it is not kept already. The bytes
// are shared and must not be modified. A nil result of make is not kept.
// Encodings are dropped when they were not asked for during a while.
func (e *Entry) Encoded(form string, make func() []byte) []byte {
	if data := e.kept(form); data != nil {
		return data
	}
	// A thousand watchers wake for one event: one of them encodes.
	e.making.Lock()
	defer e.making.Unlock()
	if data := e.kept(form); data != nil {
		return data
	}
	data := make()
	if data != nil && e.pool != nil && e.pool.admit(e, len(data)) {
		e.encoded.Store(&encoding{form: form, data: data, next: e.encoded.Load()})
	}
	return data
}

func (e *Entry) kept(form string) []byte {
	for at := e.encoded.Load(); at != nil; at = at.next {
		if at.form == form {
			return at.data
		}
	}
	return nil
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
