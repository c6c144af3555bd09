// SPDX-License-Identifier: Apache-2.0

package etcdserver

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/lease/leasepb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"kaji/internal/store"
)

// Buckets of etcd's database; a snapshot has all of them, most of them empty.
const (
	bucketKey   = "key"
	bucketLease = "lease"
	bucketMeta  = "meta"
)

var otherBuckets = [...]string{"alarm", "cluster", "members", "members_removed", "auth", "authUsers", "authRoles"}

// exportPage is how many keys go into one transaction of the database.
const exportPage = 500

// Snapshot implements the Maintenance service: the store at its newest revision
// as a database of etcd's own, which etcdutl restores into a real cluster. It is
// made in a temporary file, without history.
func (s *Server) Snapshot(_ *pb.SnapshotRequest, stream grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
	dir, err := os.MkdirTemp("", "kaji-snapshot-")
	if err != nil {
		return rpcError(err)
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "db")
	if err := s.export(stream.Context(), name); err != nil {
		return rpcError(err)
	}
	return rpcError(send(name, stream))
}

// send streams a file in pieces, and its checksum after it.
func send(name string, stream grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	sum := sha256.New()
	for left := info.Size(); left > 0; {
		piece := make([]byte, min(left, 32<<10)) // sent later: it cannot be used again
		if _, err := io.ReadFull(f, piece); err != nil {
			return err
		}
		sum.Write(piece)
		left -= int64(len(piece))
		res := &pb.SnapshotResponse{RemainingBytes: uint64(left), Blob: piece, Version: clusterVersion()}
		if err := stream.Send(res); err != nil {
			return err
		}
	}
	return stream.Send(&pb.SnapshotResponse{Blob: sum.Sum(nil), Version: clusterVersion()})
}

func (s *Server) export(ctx context.Context, name string) (err error) {
	db, err := bolt.Open(name, 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	revision, err := s.store.Revision(ctx)
	if err != nil {
		return err
	}
	if err := db.Update(func(tx *bolt.Tx) error { return s.exportMeta(tx, revision) }); err != nil {
		return err
	}
	n := uint64(0)
	for start, more := "", true; more; {
		page, err := s.store.Range(ctx, store.Range{Start: start, End: hidden, Limit: exportPage, Revision: revision})
		if err != nil {
			return err
		}
		err = db.Update(func(tx *bolt.Tx) error {
			for i := range page.KVs {
				n++
				if err := s.exportKey(tx.Bucket([]byte(bucketKey)), &page.KVs[i], n); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if more = page.More(); more {
			start = page.KVs[len(page.KVs)-1].Key + "\x00"
		}
	}
	return nil
}

// exportKey writes one key under its revision; n tells apart those of one.
func (s *Server) exportKey(b *bolt.Bucket, kv *store.KeyValue, n uint64) error {
	value, err := proto.Marshal(s.keyValue(kv))
	if err != nil {
		return fmt.Errorf("key %q: %w", kv.Key, err)
	}
	return b.Put(revisionKey(kv.ModRevision, n), value)
}

func revisionKey(revision int64, n uint64) []byte {
	key := append(binary.BigEndian.AppendUint64(nil, uint64(revision)), '_')
	return binary.BigEndian.AppendUint64(key, n)
}

// exportMeta writes all that is not a key: the leases, and that what came before
// the revision is compacted. There is no Raft log that it would follow from.
func (s *Server) exportMeta(tx *bolt.Tx, revision int64) error {
	for _, name := range append([]string{bucketKey, bucketLease, bucketMeta}, otherBuckets[:]...) {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	meta := tx.Bucket([]byte(bucketMeta))
	for name, value := range map[string][]byte{
		"storageVersion":      []byte(clusterVersion()),
		"scheduledCompactRev": revisionKey(revision, 0),
		"finishedCompactRev":  revisionKey(revision, 0),
	} {
		if err := meta.Put([]byte(name), value); err != nil {
			return err
		}
	}
	leases := tx.Bucket([]byte(bucketLease))
	for id, ttl := range s.leases.all() {
		value, err := proto.Marshal(&leasepb.Lease{ID: id, TTL: ttl})
		if err != nil {
			return err
		}
		if err := leases.Put(binary.BigEndian.AppendUint64(nil, uint64(id)), value); err != nil {
			return err
		}
	}
	return nil
}

// all returns the time to live of every lease.
func (l *lessor) all() map[int64]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[int64]int64, len(l.byID))
	for id, n := range l.byID {
		out[id] = n.ttl
	}
	return out
}
