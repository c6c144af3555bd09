// SPDX-License-Identifier: Apache-2.0

// Package serve offers a container runtime on a gRPC socket, as the Container
// Runtime Interface v1 wants it, for crictl and for node agents in other
// processes. It knows no particular runtime. What a runtime lacks (metrics,
// checkpoints) answers Unimplemented.
package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/cri"
)

const (
	// maxMessage is the size of messages that clients of the CRI use.
	maxMessage = 16 << 20
	// streamChunk is how many objects one message of a stream holds.
	streamChunk = 500
)

// Config configures a Server.
type Config struct {
	// Path of the socket; only root may use it.
	Path    string
	Runtime cri.Runtime
	Images  cri.Images
}

// Server serves one socket.
type Server struct {
	listener net.Listener
	server   *grpc.Server
}

// New listens on the socket. A socket that an earlier process left is replaced.
func New(cfg Config) (*Server, error) {
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o711); err != nil {
		return nil, err
	}
	if err := os.Remove(cfg.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("listening for the CRI: %w", err)
	}
	if err := os.Chmod(cfg.Path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage), grpc.UnaryInterceptor(coded))
	metrics, _ := cfg.Runtime.(cri.Metrics) // nil where there are none
	checkpoints, _ := cfg.Runtime.(cri.Checkpoints)
	runtimeapi.RegisterRuntimeServiceServer(server, &runtimeService{Runtime: cfg.Runtime, metrics: metrics, checkpoints: checkpoints})
	runtimeapi.RegisterImageServiceServer(server, &imageService{Images: cfg.Images})
	return &Server{listener, server}, nil
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, s.server.Stop)()
	return s.server.Serve(s.listener)
}

// coded keeps the code of a wrapped status, and that of an ended context.
func coded(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	out, err := handle(ctx, req)
	if err == nil {
		return out, nil
	}
	code := status.Code(err) // sees through wrapping
	if code == codes.Unknown {
		code = status.FromContextError(contextError(err)).Code()
	}
	return nil, status.Error(code, message(err))
}

func contextError(err error) error {
	for _, known := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return known
		}
	}
	return err
}

// message is the text without the prefix that a bare status adds.
func message(err error) string {
	if s, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return s.GRPCStatus().Message()
	}
	return err.Error()
}

// runtimeService adds to a runtime what only the wire knows.
type runtimeService struct {
	cri.Runtime
	unimplemented
	metrics     cri.Metrics     // or nil
	checkpoints cri.Checkpoints // or nil
}

// unimplemented has what package cri leaves out, one level deeper than what it
// has, so that the latter wins.
type unimplemented struct {
	runtimeapi.UnimplementedRuntimeServiceServer
}

func (s *runtimeService) GetContainerEvents(_ *runtimeapi.GetEventsRequest, out grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	events, err := s.Events(out.Context())
	if err != nil {
		return err
	}
	for e := range events {
		if err := out.Send(e); err != nil {
			return err
		}
	}
	return nil
}

// inChunks sends a list in messages of bounded size.
func inChunks[T, M any](list []T, out grpc.ServerStreamingServer[M], wrap func([]T) *M) error {
	for chunk := range slices.Chunk(list, streamChunk) {
		if err := out.Send(wrap(chunk)); err != nil {
			return err
		}
	}
	return nil
}

func (s *runtimeService) StreamPodSandboxes(req *runtimeapi.StreamPodSandboxesRequest, out grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxesResponse]) error {
	got, err := s.ListPodSandbox(out.Context(), &runtimeapi.ListPodSandboxRequest{Filter: req.GetFilter()})
	if err != nil {
		return err
	}
	return inChunks(got.GetItems(), out, func(l []*runtimeapi.PodSandbox) *runtimeapi.StreamPodSandboxesResponse {
		return &runtimeapi.StreamPodSandboxesResponse{PodSandboxes: l}
	})
}

func (s *runtimeService) StreamContainers(req *runtimeapi.StreamContainersRequest, out grpc.ServerStreamingServer[runtimeapi.StreamContainersResponse]) error {
	got, err := s.ListContainers(out.Context(), &runtimeapi.ListContainersRequest{Filter: req.GetFilter()})
	if err != nil {
		return err
	}
	return inChunks(got.GetContainers(), out, func(l []*runtimeapi.Container) *runtimeapi.StreamContainersResponse {
		return &runtimeapi.StreamContainersResponse{Containers: l}
	})
}

func (s *runtimeService) StreamContainerStats(req *runtimeapi.StreamContainerStatsRequest, out grpc.ServerStreamingServer[runtimeapi.StreamContainerStatsResponse]) error {
	got, err := s.ListContainerStats(out.Context(), &runtimeapi.ListContainerStatsRequest{Filter: req.GetFilter()})
	if err != nil {
		return err
	}
	return inChunks(got.GetStats(), out, func(l []*runtimeapi.ContainerStats) *runtimeapi.StreamContainerStatsResponse {
		return &runtimeapi.StreamContainerStatsResponse{ContainerStats: l}
	})
}

func (s *runtimeService) StreamPodSandboxStats(req *runtimeapi.StreamPodSandboxStatsRequest, out grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxStatsResponse]) error {
	got, err := s.ListPodSandboxStats(out.Context(), &runtimeapi.ListPodSandboxStatsRequest{Filter: req.GetFilter()})
	if err != nil {
		return err
	}
	return inChunks(got.GetStats(), out, func(l []*runtimeapi.PodSandboxStats) *runtimeapi.StreamPodSandboxStatsResponse {
		return &runtimeapi.StreamPodSandboxStatsResponse{PodSandboxStats: l}
	})
}

func (s *runtimeService) ListMetricDescriptors(ctx context.Context, req *runtimeapi.ListMetricDescriptorsRequest) (*runtimeapi.ListMetricDescriptorsResponse, error) {
	if s.metrics == nil {
		return s.unimplemented.ListMetricDescriptors(ctx, req)
	}
	return s.metrics.ListMetricDescriptors(ctx, req)
}

func (s *runtimeService) ListPodSandboxMetrics(ctx context.Context, req *runtimeapi.ListPodSandboxMetricsRequest) (*runtimeapi.ListPodSandboxMetricsResponse, error) {
	if s.metrics == nil {
		return s.unimplemented.ListPodSandboxMetrics(ctx, req)
	}
	return s.metrics.ListPodSandboxMetrics(ctx, req)
}

func (s *runtimeService) StreamPodSandboxMetrics(_ *runtimeapi.StreamPodSandboxMetricsRequest, out grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxMetricsResponse]) error {
	got, err := s.ListPodSandboxMetrics(out.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
	if err != nil {
		return err
	}
	return inChunks(got.GetPodMetrics(), out, func(l []*runtimeapi.PodSandboxMetrics) *runtimeapi.StreamPodSandboxMetricsResponse {
		return &runtimeapi.StreamPodSandboxMetricsResponse{PodSandboxMetrics: l}
	})
}

func (s *runtimeService) CheckpointContainer(ctx context.Context, req *runtimeapi.CheckpointContainerRequest) (*runtimeapi.CheckpointContainerResponse, error) {
	if s.checkpoints == nil {
		return s.unimplemented.CheckpointContainer(ctx, req)
	}
	return s.checkpoints.CheckpointContainer(ctx, req)
}

func (s *runtimeService) CheckpointPod(ctx context.Context, req *runtimeapi.CheckpointPodRequest) (*runtimeapi.CheckpointPodResponse, error) {
	if s.checkpoints == nil {
		return s.unimplemented.CheckpointPod(ctx, req)
	}
	return s.checkpoints.CheckpointPod(ctx, req)
}

func (s *runtimeService) RestorePod(ctx context.Context, req *runtimeapi.RestorePodRequest) (*runtimeapi.RestorePodResponse, error) {
	if s.checkpoints == nil {
		return s.unimplemented.RestorePod(ctx, req)
	}
	return s.checkpoints.RestorePod(ctx, req)
}

type imageService struct {
	cri.Images
	unimplementedImages
}

type unimplementedImages struct {
	runtimeapi.UnimplementedImageServiceServer
}

func (s *imageService) StreamImages(req *runtimeapi.StreamImagesRequest, out grpc.ServerStreamingServer[runtimeapi.StreamImagesResponse]) error {
	got, err := s.ListImages(out.Context(), &runtimeapi.ListImagesRequest{Filter: req.GetFilter()})
	if err != nil {
		return err
	}
	return inChunks(got.GetImages(), out, func(l []*runtimeapi.Image) *runtimeapi.StreamImagesResponse {
		return &runtimeapi.StreamImagesResponse{Images: l}
	})
}
