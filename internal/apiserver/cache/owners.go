// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// owners shares what managedFields say: the fields that a manager owns are named
// alike in all objects of one shape, and take a fifth of a pod's memory. It
// remembers the sets that were met lately, in two generations.
type owners struct {
	mu         sync.Mutex
	young, old map[string][]byte
}

// remembered is how many sets a generation has, and remember how long one may be.
const (
	remembered = 2048
	remember   = 16 << 10
)

// share replaces the sets of a decoded object, which nobody else has yet, by
// equal ones that others have, too.
func (o *owners) share(entries []metav1.ManagedFieldsEntry) {
	if len(entries) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range entries {
		if f := entries[i].FieldsV1; f != nil && len(f.Raw) > 0 && len(f.Raw) <= remember {
			f.Raw = o.shared(f.Raw)
		}
	}
}

func (o *owners) shared(raw []byte) []byte {
	if known, ok := o.young[string(raw)]; ok {
		return known
	}
	known, ok := o.old[string(raw)]
	if !ok {
		known = raw[:len(raw):len(raw)]
	}
	if o.young == nil || len(o.young) >= remembered {
		o.old, o.young = o.young, map[string][]byte{}
	}
	o.young[string(raw)] = known
	return known
}
