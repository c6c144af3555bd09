// SPDX-License-Identifier: Apache-2.0

package pebble

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// What stands in Pebble. A revision's n-th change is written once, under the
// two keys
//
//	'm' revision(8) n(4)   what changed: see record
//	'v' revision(8) n(4)   the value; absent for a deletion
//
// in big-endian order, so that the records can be read at start, and as
// history, without the values. One more key holds
//
//	'c'                    the compacted revision(8)
const (
	prefixRecord = 'm'
	prefixValue  = 'v'
	keyCompacted = "c"
	keyLen       = 13
)

// place is where a version stands: the n-th change of a revision.
type place struct {
	revision int64
	n        uint32
}

func (p place) key(prefix byte) []byte {
	return p.appendKey(make([]byte, 0, keyLen), prefix)
}

func (p place) appendKey(b []byte, prefix byte) []byte {
	b = append(b, prefix)
	b = binary.BigEndian.AppendUint64(b, uint64(p.revision))
	return binary.BigEndian.AppendUint32(b, p.n)
}

func parseKey(b []byte, prefix byte) (place, error) {
	if len(b) != keyLen || b[0] != prefix {
		return place{}, fmt.Errorf("malformed key %x", b)
	}
	return place{int64(binary.BigEndian.Uint64(b[1:9])), binary.BigEndian.Uint32(b[9:])}, nil
}

// version is one state of one key, without the key and the value.
type version struct {
	place
	size    uint32 // length of the value
	create  int64  // zero for a deletion
	count   int64  // puts since creation
	ttl     int64  // seconds, or zero
	expires int64  // Unix milliseconds, or zero
}

func (v *version) deleted() bool { return v.create == 0 }

// appendRecord encodes all of a version but its place, and its key.
func appendRecord(b []byte, v *version, key string) []byte {
	b = binary.AppendUvarint(b, uint64(v.create))
	b = binary.AppendUvarint(b, uint64(v.count))
	b = binary.AppendUvarint(b, uint64(v.size))
	b = binary.AppendUvarint(b, uint64(v.ttl))
	b = binary.AppendUvarint(b, uint64(v.expires))
	return append(b, key...)
}

var errRecord = errors.New("malformed record")

func parseRecord(p place, b []byte) (v version, key string, err error) {
	v.place = p
	var size int64
	for _, field := range []*int64{&v.create, &v.count, &size, &v.ttl, &v.expires} {
		u, n := binary.Uvarint(b)
		if n <= 0 || u > 1<<62 {
			return version{}, "", errRecord
		}
		*field, b = int64(u), b[n:]
	}
	v.size = uint32(size)
	if len(b) == 0 || int64(v.size) != size || v.create > p.revision || v.deleted() && v.count != 0 {
		return version{}, "", errRecord
	}
	return v, string(b), nil
}
