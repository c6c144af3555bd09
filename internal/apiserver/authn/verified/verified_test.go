// SPDX-License-Identifier: Apache-2.0

package verified

import "testing"

// TestMemory keeps what is in use and lets go of what is not.
func TestMemory(t *testing.T) {
	var m Memory[int, int]
	const used, idle = -1, -2
	if _, ok := m.Get(used); ok {
		t.Fatal("an empty memory knows something")
	}
	m.Put(used, 7)
	m.Put(idle, 8)
	for i := range 3 * Generation {
		m.Put(i, i)
		if i%(Generation/2) == 0 {
			if v, ok := m.Get(used); !ok || v != 7 {
				t.Fatalf("after %d others: %d, %v", i, v, ok)
			}
		}
	}
	if _, ok := m.Get(idle); ok {
		t.Error("what nobody asked for was kept")
	}
	if n := m.Len(); n > 2*Generation {
		t.Errorf("%d are kept", n)
	}
}
