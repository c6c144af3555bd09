// SPDX-License-Identifier: Apache-2.0

// Package etcd is the store engine for an etcd cluster, reached by its client.
// The API server opens it for --etcd-servers; several API servers may share one
// cluster, also with upstream's, because keys and values pass unchanged.
//
// It caches nothing: revisions and history are the cluster's. It takes its turn
// in compacting them.
package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"kaji/internal/store"
)

// Config says where the cluster is. Only Endpoints is required.
type Config struct {
	// Endpoints are the members' client URLs.
	Endpoints []string
	// CAFile, CertFile and KeyFile are PEM files: the authority the members'
	// certificates are checked against, and the client's own certificate,
	// read anew for every connection so that it can be renewed in place.
	CAFile, CertFile, KeyFile string
	// DialTimeout bounds the first contact; zero means 20 s.
	DialTimeout time.Duration
	// CompactInterval is how long superseded revisions stay readable; the API
	// servers of a cluster, also upstream's, take turns in compacting. Zero
	// means 5 minutes, negative leaves compaction to others.
	CompactInterval time.Duration
	// Logger receives what operators should know; nil means slog's default.
	Logger *slog.Logger
}

// Store implements store.Store on an etcd cluster.
type Store struct {
	compacted atomic.Int64

	client *clientv3.Client
	log    *slog.Logger
	leases *leases
	closed atomic.Bool
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup
}

var _ store.Store = (*Store)(nil)

// Open connects to the cluster and waits until a member answers.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = 20 * time.Second
	}
	if cfg.CompactInterval == 0 {
		cfg.CompactInterval = 5 * time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	secure, err := cfg.tls()
	if err != nil {
		return nil, fmt.Errorf("store: etcd: %w", err)
	}
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	client, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: secure, Context: inner, DialTimeout: cfg.DialTimeout,
		DialKeepAliveTime: 30 * time.Second, DialKeepAliveTimeout: 10 * time.Second,
		MaxCallSendMsgSize: 64 << 20, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithUserAgent("kaji")},
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("store: etcd: %w", err)
	}
	s := &Store{client: client, log: cfg.Logger, leases: newLeases(client), ctx: inner, cancel: cancel}
	first, done := context.WithTimeout(ctx, cfg.DialTimeout)
	defer done()
	if _, err := s.Revision(first); err != nil {
		return nil, errors.Join(fmt.Errorf("store: etcd at %s: %w", strings.Join(cfg.Endpoints, ","), err), s.Close())
	}
	if cfg.CompactInterval > 0 {
		s.tasks.Go(func() { s.compactLoop(cfg.CompactInterval) })
	}
	return s, nil
}

// Compacted returns the oldest revision that can surely be read; it follows the
// cluster's by no more than one round of compaction.
func (s *Store) Compacted() int64 { return s.compacted.Load() }

// tls returns the client's TLS settings, or nil for plain connections.
func (c *Config) tls() (*tls.Config, error) {
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, errors.New("a client certificate needs both its file and its key's")
	}
	encrypted := false
	for _, e := range c.Endpoints {
		encrypted = encrypted || strings.HasPrefix(e, "https://") || strings.HasPrefix(e, "unixs://")
	}
	if !encrypted && c.CAFile == "" && c.CertFile == "" {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", c.CAFile)
		}
	}
	if c.CertFile != "" {
		load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
			return &pair, err
		}
		if _, err := load(nil); err != nil {
			return nil, err
		}
		out.GetClientCertificate = load
	}
	return out, nil
}

// usable refuses calls that would only wait for a closed connection.
func (s *Store) usable(ctx context.Context) error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	return ctx.Err()
}

// translate gives the cluster's errors the seam's names.
func (s *Store) translate(err error) error {
	switch {
	case err == nil:
		return nil
	case s.closed.Load():
		return store.ErrClosed
	case errors.Is(err, rpctypes.ErrCompacted):
		return store.ErrCompacted
	case errors.Is(err, rpctypes.ErrFutureRev):
		return store.ErrFutureRevision
	case errors.Is(err, rpctypes.ErrRequestTooLarge), errors.Is(err, rpctypes.ErrTooManyOps),
		status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "larger than max"):
		return fmt.Errorf("%w: %w", store.ErrTooLarge, err)
	}
	return fmt.Errorf("store: etcd: %w", err)
}

// keyValue converts without copying the value.
func (s *Store) keyValue(ctx context.Context, kv *mvccpb.KeyValue) store.KeyValue {
	return store.KeyValue{
		Key: string(kv.Key), Value: kv.Value,
		CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Version: kv.Version,
		TTL: s.leases.ttl(ctx, clientv3.LeaseID(kv.Lease)),
	}
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.KeyValue, bool, int64, error) {
	if err := s.usable(ctx); err != nil {
		return store.KeyValue{}, false, 0, err
	}
	res, err := s.client.Get(ctx, key)
	if err != nil {
		return store.KeyValue{}, false, 0, s.translate(err)
	}
	if len(res.Kvs) == 0 {
		return store.KeyValue{}, false, res.Header.Revision, nil
	}
	return s.keyValue(ctx, res.Kvs[0]), true, res.Header.Revision, nil
}

// bounds turns [start, end) into etcd's: its lowest key is "\x00", and an end of
// "\x00" means none.
func bounds(start, end string) (string, clientv3.OpOption) {
	if start == "" {
		start = "\x00"
	}
	if end == "" {
		return start, clientv3.WithFromKey()
	}
	return start, clientv3.WithRange(end)
}

// Range implements store.Store.
func (s *Store) Range(ctx context.Context, r store.Range) (*store.RangeResult, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	start, end := bounds(r.Start, r.End)
	opts := []clientv3.OpOption{end, clientv3.WithLimit(r.Limit), clientv3.WithRev(r.Revision)}
	if r.CountOnly {
		opts = append(opts, clientv3.WithCountOnly())
	}
	res, err := s.client.Get(ctx, start, opts...)
	if err != nil {
		return nil, s.translate(err)
	}
	out := &store.RangeResult{Count: res.Count, Revision: res.Header.Revision}
	for _, kv := range res.Kvs {
		out.KVs = append(out.KVs, s.keyValue(ctx, kv))
	}
	return out, nil
}

// Commit implements store.Store. When the connection breaks on the way, the
// error leaves open whether the transaction took effect.
func (s *Store) Commit(ctx context.Context, t store.Txn) (*store.TxnResult, error) {
	if err := errors.Join(t.Check(), s.usable(ctx)); err != nil {
		return nil, err
	}
	res, err := s.commit(ctx, &t)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		// The shared lease ran out just now.
		s.leases.forget()
		res, err = s.commit(ctx, &t)
	}
	if err != nil {
		return nil, s.translate(err)
	}
	out := &store.TxnResult{Succeeded: res.Succeeded, Revision: res.Header.Revision}
	if res.Succeeded {
		return out, nil
	}
	for i, guard := range t.Guards {
		kv := store.KeyValue{Key: guard.Key}
		if kvs := res.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
			kv = s.keyValue(ctx, kvs[0])
		}
		out.Current = append(out.Current, kv)
	}
	return out, nil
}

func (s *Store) commit(ctx context.Context, t *store.Txn) (*clientv3.TxnResponse, error) {
	var guards []clientv3.Cmp
	var writes, reads []clientv3.Op
	for _, g := range t.Guards {
		guards = append(guards, clientv3.Compare(clientv3.ModRevision(g.Key), "=", g.ModRevision))
		reads = append(reads, clientv3.OpGet(g.Key))
	}
	for _, op := range t.Ops {
		if op.Delete {
			writes = append(writes, clientv3.OpDelete(op.Key))
			continue
		}
		lease, err := s.leases.grant(ctx, op.TTL)
		if err != nil {
			return nil, err
		}
		writes = append(writes, clientv3.OpPut(op.Key, string(op.Value), clientv3.WithLease(lease)))
	}
	return s.client.Txn(ctx).If(guards...).Then(writes...).Else(reads...).Commit()
}

// Revision implements store.Store.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	res, err := s.client.Get(ctx, "\x00", clientv3.WithCountOnly())
	if err != nil {
		return 0, s.translate(err)
	}
	return res.Header.Revision, nil
}

// Compact implements store.Store.
func (s *Store) Compact(ctx context.Context, revision int64) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	_, err := s.client.Compact(ctx, revision)
	return s.translate(err)
}

// Size implements store.Store: the database of the first member that answers.
func (s *Store) Size(ctx context.Context) (int64, error) {
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	err := errors.New("no endpoints")
	for _, endpoint := range s.client.Endpoints() {
		var res *clientv3.StatusResponse
		if res, err = s.client.Status(ctx, endpoint); err == nil {
			return res.DbSize, nil
		}
	}
	return 0, s.translate(err)
}

// Close implements store.Store.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.cancel()
	s.tasks.Wait()
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("store: etcd: close: %w", err)
	}
	return nil
}
