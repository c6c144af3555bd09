// SPDX-License-Identifier: Apache-2.0

package etcdserver

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"kaji/internal/store"
)

// hidden is the prefix of the server's own keys. Clients reach what sorts before
// all of them: every key but a few that begin with four bytes of ones.
const hidden = "\xff\xff\xff\xffkaji/"

// bounds returns the store's range for etcd's: no end means the key alone, an
// end of "\x00" no upper bound.
func bounds(key, end []byte) (from, to string) {
	from, to = string(key), string(end)
	switch {
	case len(end) == 0:
		to = from + "\x00"
	case to == "\x00", to > hidden:
		to = hidden
	}
	return from, to
}

// keyValue converts; the slices stay shared, and nobody writes to them.
func (s *Server) keyValue(kv *store.KeyValue) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{
		Key: []byte(kv.Key), Value: kv.Value, CreateRevision: kv.CreateRevision,
		ModRevision: kv.ModRevision, Version: kv.Version, Lease: s.leases.of(kv.Key, kv.ModRevision),
	}
}

func checkRange(r *pb.RangeRequest) error {
	if len(r.Key) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	if _, ok := pb.RangeRequest_SortOrder_name[int32(r.SortOrder)]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	if _, ok := pb.RangeRequest_SortTarget_name[int32(r.SortTarget)]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	return nil
}

// Range implements the KV service.
func (s *Server) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if err := checkRange(r); err != nil {
		return nil, err
	}
	res, err := s.readRange(ctx, r)
	return res, rpcError(err)
}

func (s *Server) readRange(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if len(r.RangeEnd) == 0 && r.Revision == 0 && string(r.Key) < hidden {
		kv, found, revision, err := s.store.Get(ctx, string(r.Key))
		if err != nil {
			return nil, err
		}
		res := &pb.RangeResponse{Header: header(revision)}
		if found {
			res.Kvs = []*mvccpb.KeyValue{s.keyValue(&kv)}
		}
		return finishRange(r, res), nil
	}
	from, to := bounds(r.Key, r.RangeEnd)
	query := store.Range{Start: from, End: to, Revision: max(r.Revision, 0), CountOnly: r.CountOnly}
	if inKeyOrder(r) && !filtered(r) && r.Limit > 0 {
		query.Limit = r.Limit
	}
	out, err := s.store.Range(ctx, query)
	if err != nil {
		return nil, err
	}
	res := &pb.RangeResponse{Header: header(out.Revision), Count: out.Count}
	res.Kvs = make([]*mvccpb.KeyValue, len(out.KVs))
	for i := range out.KVs {
		res.Kvs[i] = s.keyValue(&out.KVs[i])
	}
	if query.Limit > 0 {
		res.More = out.More()
		return trim(r, res), nil
	}
	if r.CountOnly {
		return res, nil
	}
	return finishRange(r, res), nil
}

func inKeyOrder(r *pb.RangeRequest) bool {
	return r.SortOrder == pb.RangeRequest_NONE ||
		r.SortOrder == pb.RangeRequest_ASCEND && r.SortTarget == pb.RangeRequest_KEY
}

func filtered(r *pb.RangeRequest) bool {
	return r.MinModRevision|r.MaxModRevision|r.MinCreateRevision|r.MaxCreateRevision != 0
}

// finishRange counts, filters, sorts and limits what was read whole.
func finishRange(r *pb.RangeRequest, res *pb.RangeResponse) *pb.RangeResponse {
	res.Count = int64(len(res.Kvs))
	if r.CountOnly {
		res.Kvs = nil
		return res
	}
	if filtered(r) {
		res.Kvs = slices.DeleteFunc(res.Kvs, func(kv *mvccpb.KeyValue) bool {
			return kv.ModRevision < r.MinModRevision || kv.CreateRevision < r.MinCreateRevision ||
				r.MaxModRevision > 0 && kv.ModRevision > r.MaxModRevision ||
				r.MaxCreateRevision > 0 && kv.CreateRevision > r.MaxCreateRevision
		})
	}
	sortRange(r, res.Kvs)
	if r.Limit > 0 && int64(len(res.Kvs)) > r.Limit {
		res.Kvs, res.More = res.Kvs[:r.Limit], true
	}
	return trim(r, res)
}

// sortRange orders as asked. A target other than the key without an order means
// ascending, as it does in etcd.
func sortRange(r *pb.RangeRequest, kvs []*mvccpb.KeyValue) {
	var compare func(a, b *mvccpb.KeyValue) int
	switch r.SortTarget {
	case pb.RangeRequest_KEY:
		if r.SortOrder != pb.RangeRequest_DESCEND {
			return
		}
		compare = func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) }
	case pb.RangeRequest_VERSION:
		compare = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.Version, b.Version) }
	case pb.RangeRequest_CREATE:
		compare = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) }
	case pb.RangeRequest_MOD:
		compare = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.ModRevision, b.ModRevision) }
	case pb.RangeRequest_VALUE:
		compare = func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Value, b.Value) }
	}
	slices.SortStableFunc(kvs, func(a, b *mvccpb.KeyValue) int {
		if r.SortOrder == pb.RangeRequest_DESCEND {
			return compare(b, a)
		}
		return compare(a, b)
	})
}

func trim(r *pb.RangeRequest, res *pb.RangeResponse) *pb.RangeResponse {
	if r.KeysOnly {
		for _, kv := range res.Kvs {
			kv.Value = nil
		}
	}
	return res
}

// streamChunk is how many keys one message of a streamed range carries.
const streamChunk = 500

// RangeStream implements the KV service: the answer to Range in pieces, the
// last of which tells the revision and the count.
func (s *Server) RangeStream(r *pb.RangeRequest, out grpc.ServerStreamingServer[pb.RangeStreamResponse]) error {
	if err := checkRange(r); err != nil {
		return err
	}
	res, err := s.readRange(out.Context(), r)
	if err != nil {
		return rpcError(err)
	}
	for kvs := res.Kvs; ; {
		n := min(len(kvs), streamChunk)
		piece := &pb.RangeResponse{Kvs: kvs[:n]}
		if kvs = kvs[n:]; len(kvs) == 0 {
			piece.Header, piece.Count, piece.More = res.Header, res.Count, res.More
		}
		if err := out.Send(&pb.RangeStreamResponse{RangeResponse: piece}); err != nil || len(kvs) == 0 {
			return err
		}
	}
}

// Put implements the KV service.
func (s *Server) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	if err := checkPut(r); err != nil {
		return nil, err
	}
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
	res, err := s.transact(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{op}})
	if err != nil {
		return nil, rpcError(err)
	}
	out := res.Responses[0].GetResponsePut()
	out.Header = res.Header
	return out, nil
}

// DeleteRange implements the KV service.
func (s *Server) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	if len(r.Key) == 0 {
		return nil, rpctypes.ErrGRPCEmptyKey
	}
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
	res, err := s.transact(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{op}})
	if err != nil {
		return nil, rpcError(err)
	}
	out := res.Responses[0].GetResponseDeleteRange()
	out.Header = res.Header
	return out, nil
}

// Compact implements the KV service.
func (s *Server) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	if err := s.store.Compact(ctx, r.Revision); err != nil {
		return nil, rpcError(err)
	}
	revision, err := s.store.Revision(ctx)
	if err != nil {
		return nil, rpcError(err)
	}
	return &pb.CompactionResponse{Header: header(revision)}, nil
}
