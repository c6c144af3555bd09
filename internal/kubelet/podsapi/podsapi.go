// SPDX-License-Identifier: Apache-2.0

// Package podsapi serves the pods of the node, as the agent knows them, to programs
// on the machine: the gRPC interface of KEP-4188, on a socket below the agent's
// directory. It works while the API server is away. The agent's root tells it of
// changes; it asks the root for what there is.
package podsapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	podsv1alpha1 "k8s.io/kubelet/pkg/apis/pods/v1alpha1"
)

// waiting is how many events may wait for a client before it is cut off.
const waiting = 100

// Config is what a Server needs.
type Config struct {
	// Dir is "<root>/pods-api".
	Dir string
	// Pods are those of the node with the statuses that the agent knows.
	Pods func() []*corev1.Pod
	// Ready says whether the agent knows all its pods.
	Ready func() bool
	// Counted is told of each request's method and how it went, Dropped of events that
	// a client did not take; nil tells nobody.
	Counted func(method string, code codes.Code)
	Dropped func()
}

// Server serves the API. Its methods are safe for concurrent use.
type Server struct {
	podsv1alpha1.UnsafePodsServer
	cfg Config
	mu  sync.Mutex // guards clients
	// clients are the watches, each with room for what waits.
	clients map[chan *podsv1alpha1.WatchPodsEvent]bool
}

// New returns a Server; Run makes it answer.
func New(cfg Config) *Server {
	return &Server{cfg: cfg, clients: map[chan *podsv1alpha1.WatchPodsEvent]bool{}}
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	if err := os.MkdirAll(s.cfg.Dir, 0o750); err != nil {
		return fmt.Errorf("make the directory of the pods API: %w", err)
	}
	socket := filepath.Join(s.cfg.Dir, "pods-api.sock")
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a former socket: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listen for the pods API: %w", err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, q any, call *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		answer, err := next(ctx, q)
		s.count(call.FullMethod, err)
		return answer, err
	}), grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, call *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		err := next(srv, stream)
		s.count(call.FullMethod, err)
		return err
	}))
	podsv1alpha1.RegisterPodsServer(server, s)
	stopped := context.AfterFunc(ctx, server.Stop)
	defer stopped()
	if err := server.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve the pods API: %w", err)
	}
	return nil
}

func (s *Server) count(method string, err error) {
	if s.cfg.Counted == nil {
		return
	}
	code := status.Code(err)
	if errors.Is(err, context.Canceled) {
		code = codes.Canceled
	}
	s.cfg.Counted(path.Base(method), code)
}

func (s *Server) ready() error {
	if s.cfg.Ready != nil && !s.cfg.Ready() {
		return status.Error(codes.FailedPrecondition, "Kubelet is initializing")
	}
	return nil
}

// sorted are the pods by their identities.
func (s *Server) sorted() []*corev1.Pod {
	pods := slices.Clone(s.cfg.Pods())
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return cmp.Compare(a.UID, b.UID) })
	return pods
}

func encode(pod *corev1.Pod) ([]byte, error) {
	b, err := pod.Marshal()
	if err != nil {
		return nil, status.Errorf(codes.Internal, "failed to marshal pod: %v", err)
	}
	return b, nil
}

// ListPods implements podsv1alpha1.PodsServer.
func (s *Server) ListPods(context.Context, *podsv1alpha1.ListPodsRequest) (*podsv1alpha1.ListPodsResponse, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	answer := &podsv1alpha1.ListPodsResponse{}
	for _, pod := range s.sorted() {
		b, err := encode(pod)
		if err != nil {
			return nil, err
		}
		answer.Pods = append(answer.Pods, b)
	}
	return answer, nil
}

// GetPod implements podsv1alpha1.PodsServer.
func (s *Server) GetPod(_ context.Context, q *podsv1alpha1.GetPodRequest) (*podsv1alpha1.GetPodResponse, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	for _, pod := range s.cfg.Pods() {
		if pod.UID == types.UID(q.PodUID) {
			b, err := encode(pod)
			return &podsv1alpha1.GetPodResponse{Pod: b}, err
		}
	}
	return nil, status.Errorf(codes.NotFound, "pod with UID %s not found", q.PodUID)
}

// WatchPods implements podsv1alpha1.PodsServer: what there is, and then what changes.
func (s *Server) WatchPods(_ *podsv1alpha1.WatchPodsRequest, stream podsv1alpha1.Pods_WatchPodsServer) error {
	if err := s.ready(); err != nil {
		return err
	}
	events := make(chan *podsv1alpha1.WatchPodsEvent, waiting)
	s.mu.Lock()
	s.clients[events] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.clients, events)
	}()
	for _, pod := range s.sorted() {
		b, err := encode(pod)
		if err != nil {
			return err
		}
		if err := stream.Send(&podsv1alpha1.WatchPodsEvent{Type: podsv1alpha1.EventType_ADDED, Pod: b}); err != nil {
			return err
		}
	}
	if err := stream.Send(&podsv1alpha1.WatchPodsEvent{Type: podsv1alpha1.EventType_INITIAL_SYNC_COMPLETE}); err != nil {
		return err
	}
	for {
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case e, open := <-events:
			if !open {
				return status.Error(codes.ResourceExhausted, "watch client channel closed")
			}
			if err := stream.Send(e); err != nil {
				return err
			}
		}
	}
}

// Changed tells watches of a pod's status; added says that it is the first one.
func (s *Server) Changed(pod *corev1.Pod, added bool) {
	kind := podsv1alpha1.EventType_MODIFIED
	if added {
		kind = podsv1alpha1.EventType_ADDED
	}
	s.tell(kind, pod)
}

// Gone tells watches that a pod is no more.
func (s *Server) Gone(pod *corev1.Pod) {
	s.tell(podsv1alpha1.EventType_DELETED, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}})
}

// tell never waits: a client with too much to read is cut off.
func (s *Server) tell(kind podsv1alpha1.EventType, pod *corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.clients) == 0 {
		return
	}
	b, err := encode(pod)
	if err != nil {
		return // every pod can be
	}
	for events := range s.clients {
		select {
		case events <- &podsv1alpha1.WatchPodsEvent{Type: kind, Pod: b}:
		default:
			delete(s.clients, events)
			close(events)
			if s.cfg.Dropped != nil {
				s.cfg.Dropped()
			}
		}
	}
}
