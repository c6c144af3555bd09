// SPDX-License-Identifier: Apache-2.0

package etcdserver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"math"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"kaji/internal/store"
)

// Txn implements the KV service.
func (s *Server) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if err := s.checkTxn(r, s.cfg.MaxTxnOps); err != nil {
		return nil, err
	}
	for _, branch := range [][]*pb.RequestOp{r.Success, r.Failure} {
		if err := checkWrites(branch, &writes{puts: map[string]bool{}}); err != nil {
			return nil, err
		}
	}
	res, err := s.transact(ctx, r)
	return res, rpcError(err)
}

// checkTxn refuses what is malformed anywhere in the tree.
func (s *Server) checkTxn(r *pb.TxnRequest, limit int) error {
	if max(len(r.Compare), len(r.Success), len(r.Failure)) > limit {
		return rpctypes.ErrGRPCTooManyOps
	}
	for _, c := range r.Compare {
		if len(c.Key) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
	}
	for _, op := range slices.Concat(r.Success, r.Failure) {
		var err error
		switch op := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			err = checkRange(op.RequestRange)
		case *pb.RequestOp_RequestPut:
			err = checkPut(op.RequestPut)
		case *pb.RequestOp_RequestDeleteRange:
			if len(op.RequestDeleteRange.Key) == 0 {
				err = rpctypes.ErrGRPCEmptyKey
			}
		case *pb.RequestOp_RequestTxn:
			// Each level may hold less, so that depth is bounded too.
			err = s.checkTxn(op.RequestTxn, limit-1)
		default:
			err = rpctypes.ErrGRPCKeyNotFound
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var errReserved = status.Error(codes.InvalidArgument, `etcdserver: keys from "\xff\xff\xff\xffkaji/" on are reserved`)

func checkPut(r *pb.PutRequest) error {
	switch {
	case len(r.Key) == 0:
		return rpctypes.ErrGRPCEmptyKey
	case string(r.Key) >= hidden:
		return errReserved
	case r.IgnoreValue && len(r.Value) != 0:
		return rpctypes.ErrGRPCValueProvided
	case r.IgnoreLease && r.Lease != 0:
		return rpctypes.ErrGRPCLeaseProvided
	}
	return nil
}

// writes are the keys a branch writes: none may be written twice.
type writes struct {
	puts    map[string]bool
	deletes [][2]string
}

func (w *writes) covers(key string) bool {
	return slices.ContainsFunc(w.deletes, func(d [2]string) bool { return key >= d[0] && key < d[1] })
}

func checkWrites(branch []*pb.RequestOp, w *writes) error {
	for _, op := range branch {
		if r := op.GetRequestDeleteRange(); r != nil {
			from, to := bounds(r.Key, r.RangeEnd)
			w.deletes = append(w.deletes, [2]string{from, to})
		}
	}
	for key := range w.puts {
		if w.covers(key) {
			return rpctypes.ErrGRPCDuplicateKey
		}
	}
	for _, op := range branch {
		if r := op.GetRequestPut(); r != nil {
			if key := string(r.Key); w.puts[key] || w.covers(key) {
				return rpctypes.ErrGRPCDuplicateKey
			}
			w.puts[string(r.Key)] = true
		}
	}
	for _, op := range branch {
		r := op.GetRequestTxn()
		if r == nil {
			continue
		}
		// Only one of the two will happen: neither excludes the other's keys.
		other := &writes{puts: maps.Clone(w.puts), deletes: slices.Clone(w.deletes)}
		if err := checkWrites(r.Success, other); err != nil {
			return err
		}
		if err := checkWrites(r.Failure, w); err != nil {
			return err
		}
		maps.Copy(w.puts, other.puts)
		w.deletes = append(w.deletes, other.deletes...)
	}
	return nil
}

// keys returns the single keys a transaction touches, or nil when it touches
// ranges or nests.
func keys(r *pb.TxnRequest) []string {
	out := []string{}
	for _, c := range r.Compare {
		if len(c.RangeEnd) > 0 {
			return nil
		}
		out = append(out, string(c.Key))
	}
	for _, branch := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range branch {
			switch op := op.Request.(type) {
			case *pb.RequestOp_RequestPut:
				out = append(out, string(op.RequestPut.Key))
			case *pb.RequestOp_RequestRange:
				if len(op.RequestRange.RangeEnd) > 0 || op.RequestRange.Revision != 0 {
					return nil
				}
				out = append(out, string(op.RequestRange.Key))
			case *pb.RequestOp_RequestDeleteRange:
				if len(op.RequestDeleteRange.RangeEnd) > 0 {
					return nil
				}
				out = append(out, string(op.RequestDeleteRange.Key))
			default:
				return nil
			}
		}
	}
	return out
}

// errAgain says that a guard failed: something read has changed.
var errAgain = errors.New("read again")

// transact evaluates and commits until nothing changed in between.
func (s *Server) transact(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	defer s.locks.lock(keys(r))()
	for {
		t := &txn{s: s, ctx: ctx, seen: map[string]*store.KeyValue{}, pending: map[string]*write{}}
		res, err := t.run(r)
		if err == nil {
			err = t.commit(res)
		}
		if !errors.Is(err, errAgain) {
			return res, err
		}
	}
}

// txn is one evaluation of a transaction: what it read, and what it will write.
type txn struct {
	s   *Server
	ctx context.Context
	// seen holds the keys read one by one; a value of nil was absent.
	seen    map[string]*store.KeyValue
	pending map[string]*write
	order   []*write
	// headers are those of all answers; their revision is filled in last.
	headers  []*pb.ResponseHeader
	revision int64
}

// write is a key's new state; kv is nil for a deletion. Its revisions are filled
// in after the commit.
type write struct {
	key     string
	kv      *mvccpb.KeyValue
	created bool
}

func (t *txn) run(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	ok := true
	for _, c := range r.Compare {
		holds, err := t.holds(c)
		if err != nil {
			return nil, err
		}
		if ok = ok && holds; !ok {
			break
		}
	}
	branch := r.Success
	if !ok {
		branch = r.Failure
	}
	res := &pb.TxnResponse{Header: t.header(), Succeeded: ok}
	for _, op := range branch {
		answer, err := t.apply(op)
		if err != nil {
			return nil, err
		}
		res.Responses = append(res.Responses, answer)
	}
	return res, nil
}

// header returns one whose revision is known after the commit.
func (t *txn) header() *pb.ResponseHeader {
	h := header(0)
	t.headers = append(t.headers, h)
	return h
}

func (t *txn) apply(op *pb.RequestOp) (*pb.ResponseOp, error) {
	switch op := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		res, err := t.rangeOp(op.RequestRange)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: res}}, err
	case *pb.RequestOp_RequestPut:
		res, err := t.put(op.RequestPut)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: res}}, err
	case *pb.RequestOp_RequestDeleteRange:
		res, err := t.deleteRange(op.RequestDeleteRange)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: res}}, err
	default:
		res, err := t.run(op.(*pb.RequestOp_RequestTxn).RequestTxn)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: res}}, err
	}
}

// get reads one key as the transaction sees it, or nil.
func (t *txn) get(key string) (*mvccpb.KeyValue, error) {
	if w, ok := t.pending[key]; ok {
		return w.kv, nil
	}
	if key >= hidden {
		return nil, nil
	}
	kv, ok := t.seen[key]
	if !ok {
		read, found, revision, err := t.s.store.Get(t.ctx, key)
		if err != nil {
			return nil, err
		}
		if found {
			kv = &read
		}
		t.seen[key], t.revision = kv, max(t.revision, revision)
	}
	if kv == nil {
		return nil, nil
	}
	return t.s.keyValue(kv), nil
}

// list reads a range as the transaction sees it.
func (t *txn) list(key, end []byte) ([]*mvccpb.KeyValue, error) {
	if len(end) == 0 {
		kv, err := t.get(string(key))
		if kv == nil {
			return nil, err
		}
		return []*mvccpb.KeyValue{kv}, nil
	}
	res, err := t.s.readRange(t.ctx, &pb.RangeRequest{Key: key, RangeEnd: end})
	if err != nil {
		return nil, err
	}
	t.revision = max(t.revision, res.Header.Revision)
	kvs := slices.DeleteFunc(res.Kvs, func(kv *mvccpb.KeyValue) bool { return t.pending[string(kv.Key)] != nil })
	from, to := bounds(key, end)
	for _, w := range t.order {
		if w.kv != nil && w.key >= from && w.key < to {
			kvs = append(kvs, w.kv)
		}
	}
	slices.SortFunc(kvs, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	return kvs, nil
}

func (t *txn) rangeOp(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if r.Revision > 0 {
		res, err := t.s.readRange(t.ctx, r)
		if res != nil {
			t.revision = max(t.revision, res.Header.Revision)
			res.Header = t.header()
		}
		return res, err
	}
	kvs, err := t.list(r.Key, r.RangeEnd)
	if err != nil {
		return nil, err
	}
	return finishRange(r, &pb.RangeResponse{Header: t.header(), Kvs: kvs}), nil
}

func (t *txn) put(r *pb.PutRequest) (*pb.PutResponse, error) {
	prev, err := t.get(string(r.Key))
	if err != nil {
		return nil, err
	}
	if prev == nil && (r.IgnoreValue || r.IgnoreLease) {
		return nil, rpctypes.ErrGRPCKeyNotFound
	}
	// Until the commit the revision is one above all others.
	next := &mvccpb.KeyValue{
		Key: r.Key, Value: r.Value, Version: 1, Lease: r.Lease, CreateRevision: math.MaxInt64, ModRevision: math.MaxInt64,
	}
	if prev != nil {
		next.CreateRevision, next.Version = prev.CreateRevision, prev.Version+1
		if r.IgnoreValue {
			next.Value = prev.Value
		}
		if r.IgnoreLease {
			next.Lease = prev.Lease
		}
	}
	if next.Lease != 0 && !t.s.leases.exists(next.Lease) {
		return nil, rpctypes.ErrGRPCLeaseNotFound
	}
	t.stage(&write{key: string(r.Key), kv: next, created: prev == nil})
	res := &pb.PutResponse{Header: t.header()}
	if r.PrevKv {
		res.PrevKv = prev
	}
	return res, nil
}

func (t *txn) deleteRange(r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	kvs, err := t.list(r.Key, r.RangeEnd)
	if err != nil {
		return nil, err
	}
	for _, kv := range kvs {
		t.stage(&write{key: string(kv.Key)})
	}
	res := &pb.DeleteRangeResponse{Header: t.header(), Deleted: int64(len(kvs))}
	if r.PrevKv {
		res.PrevKvs = kvs
	}
	return res, nil
}

func (t *txn) stage(w *write) {
	t.pending[w.key] = w
	t.order = append(t.order, w)
}

// commit writes what is pending, guarded by what was read, and fills in the
// revision.
func (t *txn) commit(res *pb.TxnResponse) error {
	var st store.Txn
	attach := map[string]int64{}
	for _, w := range t.order {
		op := store.Op{Key: w.key, Delete: w.kv == nil}
		lease := int64(0)
		if w.kv != nil {
			op.Value, lease = w.kv.Value, w.kv.Lease
		}
		attach[w.key] = lease
		st.Ops = append(st.Ops, op)
		st.Ops = append(st.Ops, t.s.leases.move(w.key, lease)...)
	}
	if len(st.Ops) > 0 {
		for key, kv := range t.seen {
			guard := store.Guard{Key: key}
			if kv != nil {
				guard.ModRevision = kv.ModRevision
			}
			st.Guards = append(st.Guards, guard)
		}
		done, err := t.s.store.Commit(t.ctx, st)
		if err != nil {
			return err
		}
		if !done.Succeeded {
			return errAgain
		}
		t.revision = done.Revision
		t.s.leases.moved(attach, done.Revision)
	} else if t.revision == 0 {
		revision, err := t.s.store.Revision(t.ctx)
		if err != nil {
			return err
		}
		t.revision = revision
	}
	for _, w := range t.order {
		if w.kv == nil {
			continue
		}
		if w.kv.ModRevision = t.revision; w.created {
			w.kv.CreateRevision = t.revision
		}
	}
	for _, h := range t.headers {
		h.Revision = t.revision
	}
	return nil
}

// holds evaluates a compare; over a range it must hold for every key.
func (t *txn) holds(c *pb.Compare) (bool, error) {
	kvs, err := t.list(c.Key, c.RangeEnd)
	if err != nil {
		return false, err
	}
	if len(kvs) == 0 {
		if c.Target == pb.Compare_VALUE {
			return false, nil // nothing has no value, not even another one
		}
		kvs = []*mvccpb.KeyValue{{}}
	}
	for _, kv := range kvs {
		if !compare(c, kv) {
			return false, nil
		}
	}
	return true, nil
}

func compare(c *pb.Compare, kv *mvccpb.KeyValue) bool {
	var order int
	switch c.Target {
	case pb.Compare_VALUE:
		order = bytes.Compare(kv.Value, c.GetValue())
	case pb.Compare_CREATE:
		order = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
	case pb.Compare_MOD:
		order = cmp.Compare(kv.ModRevision, c.GetModRevision())
	case pb.Compare_VERSION:
		order = cmp.Compare(kv.Version, c.GetVersion())
	case pb.Compare_LEASE:
		order = cmp.Compare(kv.Lease, c.GetLease())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return order == 0
	case pb.Compare_NOT_EQUAL:
		return order != 0
	case pb.Compare_GREATER:
		return order > 0
	case pb.Compare_LESS:
		return order < 0
	}
	return true
}
