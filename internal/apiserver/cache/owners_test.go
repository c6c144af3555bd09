// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"fmt"
	"testing"
	"unsafe"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Objects with equal owners share them, whatever came between, and no more is
// remembered than two generations.
func TestOwnersAreShared(t *testing.T) {
	var o owners
	own := func(text string) *metav1.FieldsV1 {
		entries := []metav1.ManagedFieldsEntry{{Manager: "m"}, {FieldsV1: metav1.NewFieldsV1(text)}}
		o.share(entries)
		if got := entries[1].FieldsV1.GetRawString(); got != text {
			t.Fatalf("%q became %q", text, got)
		}
		return entries[1].FieldsV1
	}
	at := func(f *metav1.FieldsV1) *byte { return unsafe.SliceData(f.Raw) }
	first := at(own(`{"f:spec":{}}`))
	for i := range 3 * remembered {
		own(fmt.Sprintf(`{"f:data":{"f:%d":{}}}`, i))
		if i%(remembered/2) == 0 && at(own(`{"f:spec":{}}`)) != first {
			t.Fatalf("it is not shared after %d others", i)
		}
	}
	if n := len(o.young) + len(o.old); n > 2*remembered {
		t.Errorf("%d sets are remembered", n)
	}
	large := string(bytes.Repeat([]byte("x"), remember+1))
	if at(own(large)) == at(own(large)) {
		t.Error("a large set is kept for others")
	}
}
