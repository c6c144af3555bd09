// SPDX-License-Identifier: Apache-2.0

package etcdserver

import (
	"cmp"
	"container/heap"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"kaji/internal/store"
)

// What the store keeps of leases: one key for each, with its time to live in
// seconds, and one for each key that hangs on it.
const (
	leasePrefix  = hidden + "lease/"
	attachPrefix = hidden + "attached/"
	maxTTL       = 9_000_000_000
)

func leaseKey(id int64) string { return fmt.Sprintf("%s%016x", leasePrefix, uint64(id)) }

func attachKey(id int64, key string) string {
	return fmt.Sprintf("%s%016x/%s", attachPrefix, uint64(id), key)
}

func parseID(s string) (int64, error) {
	id, err := strconv.ParseUint(s, 16, 64)
	return int64(id), err
}

// lessor knows the leases. After a restart each begins anew: clients could not
// renew theirs while the server was away.
type lessor struct {
	mu sync.Mutex
	// byID and attached mirror what the store keeps.
	byID     map[int64]*lease
	attached map[string]attachment
	expiry   leaseHeap
	wake     chan struct{}
}

type lease struct {
	id      int64
	ttl     int64
	expires time.Time
	keys    map[string]struct{}
	index   int // in the heap; -1 while it is being revoked
}

// attachment says which lease holds a key since which revision.
type attachment struct {
	id       int64
	revision int64
}

func newLessor() *lessor {
	return &lessor{byID: map[int64]*lease{}, attached: map[string]attachment{}, wake: make(chan struct{}, 1)}
}

// leaseHeap has the lease next to expire first.
type leaseHeap []*lease

func (h leaseHeap) Len() int           { return len(h) }
func (h leaseHeap) Less(i, j int) bool { return h[i].expires.Before(h[j].expires) }
func (h leaseHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *leaseHeap) Push(x any) {
	l := x.(*lease)
	l.index = len(*h)
	*h = append(*h, l)
}
func (h *leaseHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h, l.index = old[:len(old)-1], -1
	return l
}

// of returns the lease that holds a key since the put of that revision.
func (l *lessor) of(key string, revision int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a, ok := l.attached[key]; ok && revision >= a.revision {
		return a.id
	}
	return 0
}

func (l *lessor) exists(id int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byID[id] != nil && l.byID[id].index >= 0
}

// move returns what the store must write for a key to hang on a lease, or on
// none; the key is locked.
func (l *lessor) move(key string, id int64) (ops []store.Op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old := l.attached[key].id; old != id {
		if old != 0 {
			ops = append(ops, store.Op{Key: attachKey(old, key), Delete: true})
		}
		if id != 0 {
			ops = append(ops, store.Op{Key: attachKey(id, key)})
		}
	}
	return ops
}

// moved repeats in memory what the store has written; the keys are locked.
func (l *lessor) moved(keys map[string]int64, revision int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, id := range keys {
		old, held := l.attached[key]
		if held && old.id == id {
			continue
		}
		if held && l.byID[old.id] != nil {
			delete(l.byID[old.id].keys, key)
		}
		delete(l.attached, key)
		if id != 0 && l.byID[id] != nil {
			l.attached[key] = attachment{id, revision}
			l.byID[id].keys[key] = struct{}{}
		}
	}
}

// add makes a lease known and starts its time.
func (l *lessor) add(id, ttl int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := &lease{id: id, ttl: ttl, expires: deadline(ttl), keys: map[string]struct{}{}}
	l.byID[id] = n
	heap.Push(&l.expiry, n)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func deadline(ttl int64) time.Time { return time.Now().Add(time.Duration(ttl) * time.Second) }

// loadLeases reads back what an earlier run has kept.
func (s *Server) loadLeases(ctx context.Context) error {
	res, err := s.store.Range(ctx, store.Range{Start: leasePrefix, End: store.PrefixEnd(leasePrefix)})
	if err != nil {
		return err
	}
	for _, kv := range res.KVs {
		id, err := parseID(strings.TrimPrefix(kv.Key, leasePrefix))
		if err != nil || len(kv.Value) != 8 {
			return fmt.Errorf("malformed lease %q", kv.Key)
		}
		s.leases.add(id, int64(binary.BigEndian.Uint64(kv.Value)))
	}
	res, err = s.store.Range(ctx, store.Range{Start: attachPrefix, End: store.PrefixEnd(attachPrefix)})
	if err != nil {
		return err
	}
	for _, kv := range res.KVs {
		hex, key, ok := strings.Cut(strings.TrimPrefix(kv.Key, attachPrefix), "/")
		id, err := parseID(hex)
		if err != nil || !ok {
			return fmt.Errorf("malformed attachment %q", kv.Key)
		}
		s.leases.moved(map[string]int64{key: id}, kv.ModRevision)
	}
	return nil
}

// LeaseGrant implements the Lease service.
func (s *Server) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	if r.TTL > maxTTL {
		return nil, rpctypes.ErrGRPCLeaseTTLTooLarge
	}
	ttl, id := max(r.TTL, 1), r.ID
	for id == 0 {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return nil, rpcError(err)
		}
		id = int64(binary.BigEndian.Uint64(b[:]) >> 1)
	}
	res, err := s.store.Commit(ctx, store.Txn{
		Guards: []store.Guard{{Key: leaseKey(id)}},
		Ops:    []store.Op{{Key: leaseKey(id), Value: binary.BigEndian.AppendUint64(nil, uint64(ttl))}},
	})
	if err != nil {
		return nil, rpcError(err)
	}
	if !res.Succeeded {
		return nil, rpctypes.ErrGRPCLeaseExist
	}
	s.leases.add(id, ttl)
	return &pb.LeaseGrantResponse{Header: header(res.Revision), ID: id, TTL: ttl}, nil
}

// LeaseRevoke implements the Lease service.
func (s *Server) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	revision, err := s.revoke(ctx, r.ID)
	if err != nil {
		return nil, rpcError(err)
	}
	return &pb.LeaseRevokeResponse{Header: header(revision)}, nil
}

// revoke deletes a lease and its keys in one revision. Nothing else is written
// meanwhile, so that no key can be put on the lease behind its back.
func (s *Server) revoke(ctx context.Context, id int64) (int64, error) {
	defer s.locks.lock(nil)()
	keys, ok := s.leases.keys(id)
	if !ok {
		return 0, rpctypes.ErrGRPCLeaseNotFound
	}
	t := store.Txn{Ops: []store.Op{{Key: leaseKey(id), Delete: true}}}
	for _, key := range keys {
		t.Ops = append(t.Ops, store.Op{Key: key, Delete: true}, store.Op{Key: attachKey(id, key), Delete: true})
	}
	res, err := s.store.Commit(ctx, t)
	if err != nil {
		return 0, err
	}
	s.leases.remove(id)
	return res.Revision, nil
}

// keys returns the sorted keys of a lease.
func (l *lessor) keys(id int64) ([]string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.byID[id]
	if !ok {
		return nil, false
	}
	keys := make([]string, 0, len(n.keys))
	for key := range n.keys {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys, true
}

func (l *lessor) remove(id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.byID[id]
	if n == nil {
		return
	}
	for key := range n.keys {
		delete(l.attached, key)
	}
	if delete(l.byID, id); n.index >= 0 {
		heap.Remove(&l.expiry, n.index)
	}
}

// LeaseKeepAlive implements the Lease service.
func (s *Server) LeaseKeepAlive(stream grpc.BidiStreamingServer[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		revision, err := s.store.Revision(stream.Context())
		if err != nil {
			return rpcError(err)
		}
		res := &pb.LeaseKeepAliveResponse{Header: header(revision), ID: r.ID, TTL: s.leases.renew(r.ID)}
		if err := stream.Send(res); err != nil {
			return err
		}
	}
}

// renew starts a lease's time anew and returns it, or zero if there is none.
func (l *lessor) renew(id int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.byID[id]
	if n == nil || n.index < 0 {
		return 0
	}
	n.expires = deadline(n.ttl)
	heap.Fix(&l.expiry, n.index)
	return n.ttl
}

// LeaseTimeToLive implements the Lease service; a lease that is not there has -1.
func (s *Server) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	revision, err := s.store.Revision(ctx)
	if err != nil {
		return nil, rpcError(err)
	}
	res := &pb.LeaseTimeToLiveResponse{Header: header(revision), ID: r.ID, TTL: -1}
	keys, ok := s.leases.keys(r.ID)
	if !ok {
		return res, nil
	}
	if r.Keys {
		for _, key := range keys {
			res.Keys = append(res.Keys, []byte(key))
		}
	}
	res.GrantedTTL, res.TTL = s.leases.times(r.ID)
	return res, nil
}

func (l *lessor) times(id int64) (granted, left int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.byID[id]
	if n == nil {
		return 0, -1
	}
	return n.ttl, max(int64(time.Until(n.expires).Seconds()+0.5), 0)
}

// LeaseLeases implements the Lease service.
func (s *Server) LeaseLeases(ctx context.Context, _ *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	revision, err := s.store.Revision(ctx)
	if err != nil {
		return nil, rpcError(err)
	}
	res := &pb.LeaseLeasesResponse{Header: header(revision)}
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	for id := range s.leases.byID {
		res.Leases = append(res.Leases, &pb.LeaseStatus{ID: id})
	}
	slices.SortFunc(res.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
	return res, nil
}

// expireLeases revokes each lease at its time.
func (s *Server) expireLeases(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.leases.wake:
		case <-ctx.Done():
			return
		}
		id, next := s.leases.due()
		for ; id != 0; id, next = s.leases.due() {
			if _, err := s.revoke(ctx, id); err != nil {
				s.leases.restore(id)
				next = time.Second
				if ctx.Err() == nil {
					s.cfg.Logger.Warn("A lease could not be revoked and is tried again", "err", err.Error())
				}
				break
			}
		}
		timer.Reset(next)
	}
}

// due takes an expired lease off the heap, or tells when the next one expires.
func (l *lessor) due() (id int64, next time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.expiry) == 0 {
		return 0, time.Hour
	}
	if left := time.Until(l.expiry[0].expires); left > 0 {
		return 0, left
	}
	return heap.Pop(&l.expiry).(*lease).id, 0
}

// restore puts back a lease that could not be revoked.
func (l *lessor) restore(id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.byID[id]; n != nil && n.index < 0 {
		heap.Push(&l.expiry, n)
	}
}
