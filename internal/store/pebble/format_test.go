// SPDX-License-Identifier: Apache-2.0

package pebble

import (
	"bytes"
	"testing"
)

func TestRecord(t *testing.T) {
	v := version{place: place{7, 3}, size: 300, create: 5, count: 2, ttl: 60, expires: 1 << 42}
	got, key, err := parseRecord(v.place, appendRecord(nil, &v, "/registry/pods/a"))
	if err != nil || got != v || key != "/registry/pods/a" {
		t.Fatalf("%+v %q %v", got, key, err)
	}
	p, err := parseKey(v.key(prefixRecord), prefixRecord)
	if err != nil || p != v.place {
		t.Fatalf("%+v %v", p, err)
	}
}

// FuzzRecord: whatever bytes a disk returns, a record is refused or means one thing.
func FuzzRecord(f *testing.F) {
	v := version{place: place{9, 0}, size: 1, create: 9, count: 1}
	f.Add(appendRecord(nil, &v, "/a"))
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, key, err := parseRecord(place{9, 0}, b)
		if err != nil {
			return
		}
		again, key2, err := parseRecord(v.place, appendRecord(nil, &v, key))
		if err != nil || again != v || key2 != key {
			t.Fatalf("%+v %q became %+v %q: %v", v, key, again, key2, err)
		}
	})
}
