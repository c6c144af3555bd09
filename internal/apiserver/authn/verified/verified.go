// SPDX-License-Identifier: Apache-2.0

// Package verified remembers credentials whose signature was verified: clients
// show the same one with every request, and to verify it costs more than most
// requests do. The authenticators of ServiceAccount tokens and of client
// certificates keep a Memory each.
//
// It says nothing of whether a credential is still good: whatever may change,
// times above all, is judged at every use by whoever asks.
package verified

import "sync"

// Generation is how many credentials one generation holds: some 2 MB of tokens.
const Generation = 2048

// Memory keeps what was found out about credentials, in two generations of
// bounded size: whatever is in use moves to the young one before the old one is
// let go. K is how a credential is known: a hash, if it must not be kept. Values
// are shared and must not be changed. The zero value is empty and ready; it is
// safe for concurrent use.
type Memory[K comparable, V any] struct {
	mu         sync.Mutex
	young, old map[K]V
}

// Get returns what is known of a credential.
func (m *Memory[K, V]) Get(credential K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.young[credential]
	if ok {
		return v, true
	}
	if v, ok = m.old[credential]; ok {
		m.put(credential, v)
	}
	return v, ok
}

// Put keeps what was found out about a credential.
func (m *Memory[K, V]) Put(credential K, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(credential, v)
}

func (m *Memory[K, V]) put(credential K, v V) {
	if m.young == nil || len(m.young) >= Generation {
		m.young, m.old = map[K]V{}, m.young
	}
	m.young[credential] = v
}

// Len is how many credentials are kept, those of both generations twice.
func (m *Memory[K, V]) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.young) + len(m.old)
}
