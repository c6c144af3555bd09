// SPDX-License-Identifier: Apache-2.0

// Package podresources serves the pod resources API v1 on a socket of the node:
// monitoring agents and device plug-ins ask there which devices, processors and
// memory which containers have. The agent's root runs it and says what there is.
// It only reads.
package podresources

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/flowcontrol"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"

	"kaji/internal/kubelet/podspec"
)

// How often may be asked, a second.
const (
	rate  = 100
	burst = 10
)

// Host knows what containers have.
type Host interface {
	// ActivePods are those that are not over.
	ActivePods() []*corev1.Pod
	// ContainerResources fills in all but the name.
	ContainerResources(*corev1.Pod, *corev1.Container) *podresourcesv1.ContainerResources
	// AllocatableResources are what all containers together could have.
	AllocatableResources() *podresourcesv1.AllocatableResourcesResponse
}

// Server serves the API.
type Server struct {
	podresourcesv1.UnsafePodResourcesListerServer
	// Dir is "<root>/pod-resources".
	Dir string
	// Counted is told of each request's method and how it went; nil tells nobody.
	Counted func(method string, err error)
	Host    Host
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	if err := os.MkdirAll(s.Dir, 0o750); err != nil {
		return fmt.Errorf("make the directory of pod resources: %w", err)
	}
	socket := filepath.Join(s.Dir, "kubelet.sock")
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a former socket: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listen for pod resources: %w", err)
	}
	limiter := flowcontrol.NewTokenBucketRateLimiter(rate, burst)
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, q any, call *grpc.UnaryServerInfo, next grpc.UnaryHandler) (_ any, err error) {
		if s.Counted != nil {
			defer func() { s.Counted(path.Base(call.FullMethod), err) }()
		}
		if !limiter.TryAccept() {
			return nil, status.Error(codes.ResourceExhausted, "rejected by rate limit")
		}
		return next(ctx, q)
	}))
	podresourcesv1.RegisterPodResourcesListerServer(server, s)
	stopped := context.AfterFunc(ctx, server.Stop)
	defer stopped()
	if err := server.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve pod resources: %w", err)
	}
	return nil
}

// List implements podresourcesv1.PodResourcesListerServer.
func (s *Server) List(context.Context, *podresourcesv1.ListPodResourcesRequest) (*podresourcesv1.ListPodResourcesResponse, error) {
	answer := &podresourcesv1.ListPodResourcesResponse{}
	for _, pod := range s.Host.ActivePods() {
		answer.PodResources = append(answer.PodResources, s.pod(pod))
	}
	return answer, nil
}

// Get implements podresourcesv1.PodResourcesListerServer.
func (s *Server) Get(_ context.Context, q *podresourcesv1.GetPodResourcesRequest) (*podresourcesv1.GetPodResourcesResponse, error) {
	for _, pod := range s.Host.ActivePods() {
		if pod.Namespace == q.PodNamespace && pod.Name == q.PodName {
			return &podresourcesv1.GetPodResourcesResponse{PodResources: s.pod(pod)}, nil
		}
	}
	return nil, fmt.Errorf("pod %s in namespace %s not found", q.PodName, q.PodNamespace)
}

// GetAllocatableResources implements podresourcesv1.PodResourcesListerServer.
func (s *Server) GetAllocatableResources(context.Context, *podresourcesv1.AllocatableResourcesRequest) (*podresourcesv1.AllocatableResourcesResponse, error) {
	return s.Host.AllocatableResources(), nil
}

func (s *Server) pod(pod *corev1.Pod) *podresourcesv1.PodResources {
	out := &podresourcesv1.PodResources{Name: pod.Name, Namespace: pod.Namespace}
	add := func(c *corev1.Container) {
		r := s.Host.ContainerResources(pod, c)
		r.Name = c.Name
		out.Containers = append(out.Containers, r)
	}
	for i := range pod.Spec.InitContainers {
		if podspec.Sidecar(&pod.Spec.InitContainers[i]) {
			add(&pod.Spec.InitContainers[i])
		}
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i])
	}
	return out
}
