// SPDX-License-Identifier: Apache-2.0

// Package memcri is a container runtime without containers: it keeps sandboxes
// and containers in memory and lets its owner decide how they fare. The node
// agent's tests run on it, and hollow nodes do.
package memcri

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/cri"
)

var (
	_ cri.Runtime = (*Runtime)(nil)
	_ cri.Images  = (*Runtime)(nil)
)

// Config holds the hooks of a Runtime; all may be nil.
type Config struct {
	// Started is called when a container has started, outside of all locks.
	Started func(id string, config *runtimeapi.ContainerConfig)
	// Exec answers ExecSync.
	Exec func(id string, command []string) (stdout, stderr []byte, exitCode int32, err error)
	// Pull decides on a pull; nil makes every image present at once.
	Pull func(image string) error
	// IgnoreStop makes containers of these names ignore the stop signal: they
	// end only when the grace period is over.
	IgnoreStop map[string]bool
	// Images are present from the start.
	Images []string
}

// Runtime implements cri.Runtime and cri.Images in memory.
type Runtime struct {
	cfg Config
	mu  struct {
		sync.Mutex
		next       int
		sandboxes  map[string]*sandbox
		containers map[string]*container
		images     map[string]*runtimeapi.Image
		listeners  map[chan *runtimeapi.ContainerEventResponse]struct{}
		calls      []string
	}
}

type sandbox struct {
	config  *runtimeapi.PodSandboxConfig
	status  *runtimeapi.PodSandboxStatus
	handler string
}

type container struct {
	sandbox string
	config  *runtimeapi.ContainerConfig
	status  *runtimeapi.ContainerStatus
	ended   chan struct{}
}

// New returns an empty runtime.
func New(cfg Config) *Runtime {
	r := &Runtime{cfg: cfg}
	r.mu.sandboxes = map[string]*sandbox{}
	r.mu.containers = map[string]*container{}
	r.mu.images = map[string]*runtimeapi.Image{}
	r.mu.listeners = map[chan *runtimeapi.ContainerEventResponse]struct{}{}
	for _, image := range cfg.Images {
		r.mu.images[image] = newImage(image)
	}
	return r
}

func newImage(name string) *runtimeapi.Image {
	return &runtimeapi.Image{
		Id: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(name))), RepoTags: []string{name}, Size: 1 << 20,
		Spec: &runtimeapi.ImageSpec{Image: name},
	}
}

func notFound(what, id string) error {
	return status.Errorf(codes.NotFound, "%s %q not found", what, id)
}

func (r *Runtime) id(kind string) string {
	r.mu.next++
	return fmt.Sprintf("%s-%d", kind, r.mu.next)
}

func (r *Runtime) record(format string, args ...any) {
	r.mu.calls = append(r.mu.calls, fmt.Sprintf(format, args...))
}

// Calls returns what was asked of the runtime so far, one line a change.
func (r *Runtime) Calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.mu.calls...)
}

// Exit ends a running container as if its process had.
func (r *Runtime) Exit(id string, code int32, reason string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.mu.containers[id]
	if !ok {
		return notFound("container", id)
	}
	r.end(c, code, reason)
	return nil
}

func (r *Runtime) end(c *container, code int32, reason string) {
	if c.status.State == runtimeapi.ContainerState_CONTAINER_EXITED {
		return
	}
	c.status.State = runtimeapi.ContainerState_CONTAINER_EXITED
	c.status.FinishedAt = time.Now().UnixNano()
	c.status.ExitCode, c.status.Reason = code, reason
	close(c.ended)
	r.tell(c.status.Id, c.sandbox, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

// tell sends an event to all listeners; one that does not keep up loses it, as
// with a real runtime.
func (r *Runtime) tell(id, sandboxID string, kind runtimeapi.ContainerEventType) {
	event := &runtimeapi.ContainerEventResponse{ContainerId: id, ContainerEventType: kind, CreatedAt: time.Now().UnixNano()}
	if s := r.mu.sandboxes[sandboxID]; s != nil {
		event.PodSandboxStatus = s.status
	}
	for ch := range r.mu.listeners {
		select {
		case ch <- event:
		default:
		}
	}
}

// Events implements cri.Runtime.
func (r *Runtime) Events(ctx context.Context) (<-chan *runtimeapi.ContainerEventResponse, error) {
	ch := make(chan *runtimeapi.ContainerEventResponse, 1024)
	r.mu.Lock()
	r.mu.listeners[ch] = struct{}{}
	r.mu.Unlock()
	context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.mu.listeners, ch)
		close(ch)
	})
	return ch, nil
}

// Version implements cri.Runtime.
func (r *Runtime) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "memcri", RuntimeVersion: "1.0.0", RuntimeApiVersion: "v1"}, nil
}

// Status implements cri.Runtime.
func (r *Runtime) Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Status: true},
	}}, RuntimeHandlers: []*runtimeapi.RuntimeHandler{{Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true, UserNamespaces: true}}}}, nil
}

// RuntimeConfig implements cri.Runtime.
func (r *Runtime) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: runtimeapi.CgroupDriver_CGROUPFS}}, nil
}

// UpdateRuntimeConfig implements cri.Runtime.
func (r *Runtime) UpdateRuntimeConfig(context.Context, *runtimeapi.UpdateRuntimeConfigRequest) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	return &runtimeapi.UpdateRuntimeConfigResponse{}, nil
}
