// SPDX-License-Identifier: Apache-2.0

package etcdserver

import (
	"context"
	"encoding/json"
	"net/http"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/api/v3/version"
)

// Status implements the Maintenance service.
func (s *Server) Status(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	revision, err := s.store.Revision(ctx)
	if err != nil {
		return nil, rpcError(err)
	}
	size, err := s.store.Size(ctx)
	if err != nil {
		return nil, rpcError(err)
	}
	res := &pb.StatusResponse{
		Header: header(revision), Version: version.Version, StorageVersion: clusterVersion(),
		DbSize: size, DbSizeInUse: size, Leader: memberID,
		RaftIndex: uint64(revision), RaftAppliedIndex: uint64(revision), RaftTerm: raftTerm,
	}
	if err := s.health(); err != nil {
		res.Errors = []string{err.Error()}
	}
	return res, nil
}

// health returns why the store takes no writes, if it can tell.
func (s *Server) health() error {
	if h, ok := s.store.(interface{ Err() error }); ok {
		return h.Err()
	}
	return nil
}

func clusterVersion() string { return version.APIVersion + ".0" }

// Alarm implements the Maintenance service: a full disk is the only alarm, and
// it ends by itself.
func (s *Server) Alarm(ctx context.Context, _ *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	revision, err := s.store.Revision(ctx)
	if err != nil {
		return nil, rpcError(err)
	}
	res := &pb.AlarmResponse{Header: header(revision)}
	if noSpace(s.health()) {
		res.Alarms = []*pb.AlarmMember{{MemberID: memberID, Alarm: pb.AlarmType_NOSPACE}}
	}
	return res, nil
}

// Defragment implements the Maintenance service.
func (s *Server) Defragment(ctx context.Context, _ *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
	if d, ok := s.store.(interface{ Defragment(context.Context) error }); ok {
		if err := d.Defragment(ctx); err != nil {
			return nil, rpcError(err)
		}
	}
	revision, err := s.store.Revision(ctx)
	if err != nil {
		return nil, rpcError(err)
	}
	return &pb.DefragmentResponse{Header: header(revision)}, nil
}

// MemberList implements the Cluster service.
func (s *Server) MemberList(ctx context.Context, _ *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	revision, err := s.store.Revision(ctx)
	if err != nil {
		return nil, rpcError(err)
	}
	return &pb.MemberListResponse{Header: header(revision), Members: []*pb.Member{{
		ID: memberID, Name: s.cfg.Name, PeerURLs: s.cfg.PeerURLs, ClientURLs: s.cfg.ClientURLs,
	}}}, nil
}

// AuthStatus implements the Auth service: there is no authentication but TLS.
func (s *Server) AuthStatus(ctx context.Context, _ *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	revision, err := s.store.Revision(ctx)
	if err != nil {
		return nil, rpcError(err)
	}
	return &pb.AuthStatusResponse{Header: header(revision)}, nil
}

// Authenticate implements the Auth service.
func (s *Server) Authenticate(context.Context, *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	return nil, rpctypes.ErrGRPCAuthNotEnabled
}

// pages serves what is asked for over HTTP/1.1.
func (s *Server) pages() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/version", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, version.Versions{
			Server: version.Version, Cluster: clusterVersion(), Storage: clusterVersion(),
		})
	})
	mux.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) {
		if err := s.writable(r.Context()); err != nil {
			answer(w, http.StatusServiceUnavailable, healthPage{"false", err.Error()})
			return
		}
		answer(w, http.StatusOK, healthPage{"true", ""})
	})
	for _, path := range []string{"/livez", "/readyz"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if err := s.writable(r.Context()); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			_, _ = w.Write([]byte("ok\n"))
		})
	}
	return mux
}

type healthPage struct {
	Health string `json:"health"`
	Reason string `json:"reason"`
}

func (s *Server) writable(ctx context.Context) error {
	if err := s.health(); err != nil {
		return err
	}
	_, err := s.store.Revision(ctx)
	return err
}

func answer(w http.ResponseWriter, code int, page any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(page) // the client may have left
}
