// SPDX-License-Identifier: Apache-2.0

// Package etcdserver serves a store as an etcd cluster of one member: the part
// of the v3 gRPC API that kube-apiserver, etcdctl and client libraries use, and
// etcd's health and version pages. kaji etcd runs it over the embedded store.
//
// Leases are its own: they and what hangs on them are kept in the store under a
// prefix above all keys that clients can reach. It is the store's only writer;
// compares and reads of a transaction are guarded all the same, so that the
// expiry of a key with a time to live of its own cannot slip in between.
package etcdserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"kaji/internal/store"
)

// Config says what is served where. Store and Listener are required.
type Config struct {
	Store store.Store
	// Listener accepts the clients' connections; Run closes it.
	Listener net.Listener
	// TLS encrypts them; nil means plain connections.
	TLS *tls.Config
	// Name, ClientURLs and PeerURLs are what the member list shows.
	Name                 string
	ClientURLs, PeerURLs []string
	// MaxTxnOps bounds the operations of a transaction; zero means 128.
	MaxTxnOps int
	// MaxRequestBytes bounds a request; zero means 1.5 MiB.
	MaxRequestBytes int
	// ProgressInterval is the time between two progress notices of the
	// watches that asked for them; zero means 10 minutes.
	ProgressInterval time.Duration
	// Logger receives what operators should know; nil means slog's default.
	Logger *slog.Logger
}

// Identity of the one member. A cluster of one needs no other.
const (
	clusterID = 0x6b616a69
	memberID  = 0x6b616a6a
	raftTerm  = 2
)

// Server serves one store.
type Server struct {
	cfg    Config
	store  store.Store
	leases *lessor
	locks  locks
	// stopped ends the streams when Run ends.
	stopped chan struct{}

	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	pb.UnimplementedLeaseServer
	pb.UnimplementedClusterServer
	pb.UnimplementedMaintenanceServer
	pb.UnimplementedAuthServer
}

// New returns a server that Run starts.
func New(cfg Config) *Server {
	if cfg.MaxTxnOps == 0 {
		cfg.MaxTxnOps = 128
	}
	if cfg.MaxRequestBytes == 0 {
		cfg.MaxRequestBytes = 3 << 19
	}
	if cfg.ProgressInterval == 0 {
		cfg.ProgressInterval = 10 * time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Name == "" {
		cfg.Name = "default"
	}
	return &Server{cfg: cfg, store: cfg.Store, leases: newLessor(), stopped: make(chan struct{})}
}

// Run serves until ctx ends, then gives calls in flight a moment to finish. It
// does not close the store.
func (s *Server) Run(ctx context.Context) error {
	if err := s.loadLeases(ctx); err != nil {
		return fmt.Errorf("etcd server: leases: %w", errors.Join(err, s.cfg.Listener.Close()))
	}
	calls, pages := split(s.cfg.Listener, s.cfg.TLS)
	rpc := grpc.NewServer(
		grpc.MaxRecvMsgSize(s.cfg.MaxRequestBytes+512<<10),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(math.MaxUint32),
		// kube-apiserver asks every 30 s whether the connection lives.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	pb.RegisterKVServer(rpc, s)
	pb.RegisterWatchServer(rpc, s)
	pb.RegisterLeaseServer(rpc, s)
	pb.RegisterClusterServer(rpc, s)
	pb.RegisterMaintenanceServer(rpc, s)
	pb.RegisterAuthServer(rpc, s)
	web := &http.Server{Handler: s.pages(), ReadHeaderTimeout: 10 * time.Second}

	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	var tasks sync.WaitGroup
	errs := make(chan error, 2)
	tasks.Go(func() { errs <- rpc.Serve(calls) })
	tasks.Go(func() { errs <- web.Serve(pages) })
	tasks.Go(func() { s.expireLeases(inner) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-errs:
	}
	cancel()
	close(s.stopped)
	force := time.AfterFunc(2*time.Second, rpc.Stop)
	rpc.GracefulStop()
	force.Stop()
	_ = web.Close()
	_ = s.cfg.Listener.Close()
	tasks.Wait()
	if err != nil {
		return fmt.Errorf("etcd server: %w", err)
	}
	return nil
}

func header(revision int64) *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: clusterID, MemberId: memberID, Revision: revision, RaftTerm: raftTerm}
}

// rpcError gives an error of the store etcd's name.
func rpcError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrCompacted):
		return rpctypes.ErrGRPCCompacted
	case errors.Is(err, store.ErrFutureRevision):
		return rpctypes.ErrGRPCFutureRev
	case errors.Is(err, store.ErrTooLarge):
		return rpctypes.ErrGRPCRequestTooLarge
	case errors.Is(err, store.ErrClosed):
		return rpctypes.ErrGRPCStopped
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	if noSpace(err) {
		return rpctypes.ErrGRPCNoSpace
	}
	return status.Error(codes.Unavailable, "etcdserver: "+err.Error())
}
