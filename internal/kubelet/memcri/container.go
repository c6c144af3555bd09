// SPDX-License-Identifier: Apache-2.0

package memcri

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CreateContainer implements cri.Runtime.
func (r *Runtime) CreateContainer(_ context.Context, req *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.mu.sandboxes[req.PodSandboxId]; !ok {
		return nil, notFound("sandbox", req.PodSandboxId)
	}
	id := r.id("container")
	r.record("create %s", req.Config.GetMetadata().GetName())
	r.mu.containers[id] = &container{sandbox: req.PodSandboxId, config: req.Config, ended: make(chan struct{}), status: &runtimeapi.ContainerStatus{
		Id: id, Metadata: req.Config.Metadata, State: runtimeapi.ContainerState_CONTAINER_CREATED, CreatedAt: time.Now().UnixNano(),
		Image: req.Config.Image, ImageRef: req.Config.GetImage().GetImage(), ImageId: req.Config.GetImage().GetImage(),
		Labels: req.Config.Labels, Annotations: req.Config.Annotations, Mounts: req.Config.Mounts, LogPath: req.Config.LogPath,
		Resources: &runtimeapi.ContainerResources{Linux: req.Config.GetLinux().GetResources()},
	}}
	r.tell(id, req.PodSandboxId, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

// StartContainer implements cri.Runtime.
func (r *Runtime) StartContainer(_ context.Context, req *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	r.mu.Lock()
	c, ok := r.mu.containers[req.ContainerId]
	if !ok {
		r.mu.Unlock()
		return nil, notFound("container", req.ContainerId)
	}
	r.record("start %s", c.config.GetMetadata().GetName())
	c.status.State = runtimeapi.ContainerState_CONTAINER_RUNNING
	c.status.StartedAt = time.Now().UnixNano()
	r.tell(req.ContainerId, c.sandbox, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	r.mu.Unlock()
	if r.cfg.Started != nil {
		r.cfg.Started(req.ContainerId, c.config)
	}
	return &runtimeapi.StartContainerResponse{}, nil
}

// StopContainer implements cri.Runtime.
func (r *Runtime) StopContainer(ctx context.Context, req *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	r.mu.Lock()
	c, ok := r.mu.containers[req.ContainerId]
	if !ok {
		r.mu.Unlock()
		return &runtimeapi.StopContainerResponse{}, nil
	}
	name := c.config.GetMetadata().GetName()
	r.record("stop %s %d", name, req.Timeout)
	if !r.cfg.IgnoreStop[name] {
		r.end(c, 143, "Error")
	}
	ended := c.ended
	r.mu.Unlock()
	select {
	case <-ended:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(time.Duration(req.Timeout) * time.Second):
		r.mu.Lock()
		r.end(c, 137, "Error")
		r.mu.Unlock()
	}
	return &runtimeapi.StopContainerResponse{}, nil
}

// RemoveContainer implements cri.Runtime.
func (r *Runtime) RemoveContainer(_ context.Context, req *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.mu.containers[req.ContainerId]; ok {
		r.record("remove %s", c.config.GetMetadata().GetName())
		r.end(c, 137, "Error")
		r.tell(req.ContainerId, c.sandbox, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
		delete(r.mu.containers, req.ContainerId)
	}
	return &runtimeapi.RemoveContainerResponse{}, nil
}

// ListContainers implements cri.Runtime.
func (r *Runtime) ListContainers(_ context.Context, req *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer := &runtimeapi.ListContainersResponse{}
	for id, c := range r.mu.containers {
		f := req.GetFilter()
		if f != nil && (f.Id != "" && f.Id != id || f.PodSandboxId != "" && f.PodSandboxId != c.sandbox ||
			f.State != nil && f.State.State != c.status.State || !matches(f.LabelSelector, c.status.Labels)) {
			continue
		}
		answer.Containers = append(answer.Containers, &runtimeapi.Container{Id: id, PodSandboxId: c.sandbox, Metadata: c.status.Metadata,
			Image: c.status.Image, ImageRef: c.status.ImageRef, ImageId: c.status.ImageId, State: c.status.State, CreatedAt: c.status.CreatedAt,
			Labels: c.status.Labels, Annotations: c.status.Annotations})
	}
	return answer, nil
}

// ContainerStatus implements cri.Runtime.
func (r *Runtime) ContainerStatus(_ context.Context, req *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.mu.containers[req.ContainerId]
	if !ok {
		return nil, notFound("container", req.ContainerId)
	}
	return &runtimeapi.ContainerStatusResponse{Status: proto.Clone(c.status).(*runtimeapi.ContainerStatus)}, nil
}

// UpdateContainerResources implements cri.Runtime.
func (r *Runtime) UpdateContainerResources(_ context.Context, req *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.mu.containers[req.ContainerId]
	if !ok {
		return nil, notFound("container", req.ContainerId)
	}
	r.record("update %s", c.config.GetMetadata().GetName())
	c.status.Resources = &runtimeapi.ContainerResources{Linux: req.Linux}
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}

// ReopenContainerLog implements cri.Runtime.
func (r *Runtime) ReopenContainerLog(context.Context, *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	return &runtimeapi.ReopenContainerLogResponse{}, nil
}

// ContainerStats implements cri.Runtime.
func (r *Runtime) ContainerStats(_ context.Context, req *runtimeapi.ContainerStatsRequest) (*runtimeapi.ContainerStatsResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.mu.containers[req.ContainerId]
	if !ok {
		return nil, notFound("container", req.ContainerId)
	}
	return &runtimeapi.ContainerStatsResponse{Stats: c.stats()}, nil
}

func (c *container) stats() *runtimeapi.ContainerStats {
	now := time.Now().UnixNano()
	return &runtimeapi.ContainerStats{
		Attributes: &runtimeapi.ContainerAttributes{Id: c.status.Id, Metadata: c.status.Metadata, Labels: c.status.Labels, Annotations: c.status.Annotations},
		Cpu:        &runtimeapi.CpuUsage{Timestamp: now, UsageCoreNanoSeconds: &runtimeapi.UInt64Value{}},
		Memory:     &runtimeapi.MemoryUsage{Timestamp: now, WorkingSetBytes: &runtimeapi.UInt64Value{}},
	}
}

// ListContainerStats implements cri.Runtime.
func (r *Runtime) ListContainerStats(context.Context, *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer := &runtimeapi.ListContainerStatsResponse{}
	for _, c := range r.mu.containers {
		answer.Stats = append(answer.Stats, c.stats())
	}
	return answer, nil
}

// ExecSync implements cri.Runtime.
func (r *Runtime) ExecSync(_ context.Context, req *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	r.mu.Lock()
	c, ok := r.mu.containers[req.ContainerId]
	running := ok && c.status.State == runtimeapi.ContainerState_CONTAINER_RUNNING
	r.mu.Unlock()
	if !ok {
		return nil, notFound("container", req.ContainerId)
	}
	if !running {
		return nil, status.Errorf(codes.FailedPrecondition, "container %q is not running", req.ContainerId)
	}
	if r.cfg.Exec == nil {
		return &runtimeapi.ExecSyncResponse{}, nil
	}
	stdout, stderr, code, err := r.cfg.Exec(req.ContainerId, req.Cmd)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ExecSyncResponse{Stdout: stdout, Stderr: stderr, ExitCode: code}, nil
}

// Exec implements cri.Runtime.
func (r *Runtime) Exec(context.Context, *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	return &runtimeapi.ExecResponse{Url: "http://127.0.0.1:1/exec"}, nil
}

// Attach implements cri.Runtime.
func (r *Runtime) Attach(context.Context, *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	return &runtimeapi.AttachResponse{Url: "http://127.0.0.1:1/attach"}, nil
}
