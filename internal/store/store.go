// SPDX-License-Identifier: Apache-2.0

// Package store is the seam between the API server and what keeps its bytes:
// a revisioned, ordered key-value store with the semantics of etcd's keyspace.
//
// The API server's object layer calls it; engines (memory, pebble, etcd)
// implement it and prove it with package storetest. It knows nothing of
// Kubernetes objects: keys and values are opaque bytes, laid out by the caller
// as upstream lays them out below /registry.
package store

import (
	"context"
	"errors"
	"fmt"
)

// Errors every engine returns (wrapped; test with errors.Is).
var (
	// ErrCompacted says the asked revision is older than the last compaction.
	ErrCompacted = errors.New("required revision has been compacted")
	// ErrFutureRevision says the asked revision has not been reached yet.
	ErrFutureRevision = errors.New("required revision is a future revision")
	// ErrClosed says the store was closed.
	ErrClosed = errors.New("store closed")
	// ErrTooLarge says a key, value or transaction exceeds the engine's limits.
	ErrTooLarge = errors.New("request is too large")
)

// KeyValue is one key at one revision. Its slices are shared and must not be
// modified by either side.
type KeyValue struct {
	Key   string
	Value []byte
	// CreateRevision is the revision that created this incarnation of the key.
	CreateRevision int64
	// ModRevision is the revision of the last put.
	ModRevision int64
	// Version counts the puts since creation, starting at 1.
	Version int64
	// TTL is the time to live in seconds the key was put with, or zero.
	TTL int64
}

// Range asks for the keys in [Start, End) at one revision.
type Range struct {
	Start, End string
	// Limit bounds the number of keys returned; zero means all.
	Limit int64
	// Revision is the revision to read at; zero means the newest.
	Revision int64
	// CountOnly leaves KVs empty and fills Count alone.
	CountOnly bool
}

// RangeResult answers a Range.
type RangeResult struct {
	KVs []KeyValue
	// Count is the number of keys in the range, whatever the limit.
	Count int64
	// Revision is the store's revision when it was read.
	Revision int64
}

// More says whether the limit cut keys off.
func (r *RangeResult) More() bool { return int64(len(r.KVs)) < r.Count }

// Guard is a condition of a transaction: the key's ModRevision must equal
// ModRevision; zero demands that the key be absent.
type Guard struct {
	Key         string
	ModRevision int64
}

// Op is one write of a transaction: a put, or a deletion when Delete is set.
// Deleting an absent key is no change.
type Op struct {
	Key    string
	Value  []byte
	Delete bool
	// TTL lets the key expire after so many seconds; zero keeps it.
	TTL int64
}

// Txn applies all Ops at one revision if every Guard holds. No key may be
// written twice.
type Txn struct {
	Guards []Guard
	Ops    []Op
}

// TxnResult answers a Txn.
type TxnResult struct {
	// Succeeded is false when a guard failed; nothing was written then.
	Succeeded bool
	// Revision is the transaction's revision, or the newest one on failure.
	Revision int64
	// Current holds, on failure, the present state of each guarded key, in
	// the guards' order; an absent key has ModRevision zero.
	Current []KeyValue
}

// Event is one change of one key.
type Event struct {
	// Deleted tells a deletion from a put; KV then has only Key and
	// ModRevision (the revision of the deletion).
	Deleted bool
	KV      KeyValue
	// Prev is the key before the event; ModRevision is zero if it was absent. It
	// has its Value, which costs a reading, in watches that ask for it.
	Prev KeyValue
}

// Batch is what a watch delivers: the events of one or more whole revisions in
// order, or none at all and only a Revision: then nothing in the watched range
// has happened up to it (a progress notice). A batch with Err ends the watch.
type Batch struct {
	Events   []Event
	Revision int64
	Err      error
}

// Watch asks for all events in [Start, End) after the revision After.
type Watch struct {
	Start, End string
	// After is exclusive; events begin at After+1.
	After int64
	// Prev asks for the values that keys had before.
	Prev bool
}

// Store is implemented by every engine. All methods are safe for concurrent use.
type Store interface {
	// Get reads one key at its newest revision. found is false when absent;
	// the revision of the store is returned either way.
	Get(ctx context.Context, key string) (kv KeyValue, found bool, revision int64, err error)
	// Range reads keys in byte order.
	Range(ctx context.Context, r Range) (*RangeResult, error)
	// Commit applies a transaction durably: when it returns, the write
	// survives any crash. Events of one revision are delivered together.
	Commit(ctx context.Context, t Txn) (*TxnResult, error)
	// Watch delivers events until ctx ends or an error occurred; the channel
	// is closed afterwards. A slow reader never blocks writers: an engine
	// re-reads history for it or ends it with an error.
	Watch(ctx context.Context, w Watch) (<-chan Batch, error)
	// Progress asks every open watch to deliver a progress notice soon.
	Progress(ctx context.Context) error
	// Revision returns the newest committed revision.
	Revision(ctx context.Context) (int64, error)
	// Compact forgets history before revision; reads at it stay possible.
	Compact(ctx context.Context, revision int64) error
	// Size returns the bytes the store occupies.
	Size(ctx context.Context) (int64, error)
	// Close releases the store and ends all watches with ErrClosed.
	Close() error
}

// PrefixEnd returns the End of the range of all keys that begin with prefix;
// it is empty (no upper bound) when there is none.
func PrefixEnd(prefix string) string {
	end := []byte(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return string(end[:i+1])
		}
	}
	return ""
}

// Check validates a transaction's shape; engines call it first.
func (t *Txn) Check() error {
	seen := make(map[string]struct{}, len(t.Ops))
	for _, op := range t.Ops {
		if op.Key == "" {
			return errors.New("store: empty key")
		}
		if _, dup := seen[op.Key]; dup {
			return fmt.Errorf("store: key %q written twice in one transaction", op.Key)
		}
		seen[op.Key] = struct{}{}
	}
	return nil
}
