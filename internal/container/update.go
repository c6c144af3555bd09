// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/container/spec"
)

// UpdateContainerResources changes the limits of a running container.
func (r *Runtime) UpdateContainerResources(_ context.Context, req *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	c, err := r.findContainer(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	c.op.Lock()
	defer c.op.Unlock()
	rec := c.record.Load()
	switch rec.State {
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		return nil, status.Errorf(codes.FailedPrecondition, "container %q is not running", rec.ID)
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		if err := r.cgroups.Update(rec.Cgroup, spec.Resources(req.GetLinux(), r.node)); err != nil {
			return nil, fmt.Errorf("failed to update resources: %w", err)
		}
	}
	if err := r.updateContainer(c, func(rec *containerRecord) { setResources(rec, req.GetLinux()) }); err != nil {
		return nil, err
	}
	if err := r.respecify(c); err != nil {
		return nil, err
	}
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}

// UpdatePodSandboxResources notes the changed resources of a pod; its control
// group is the kubelet's.
func (r *Runtime) UpdatePodSandboxResources(_ context.Context, req *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	s, err := r.findSandbox(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	err = r.updateSandbox(s, func(rec *sandboxRecord) {
		config := proto.Clone(rec.Config.value).(*runtimeapi.PodSandboxConfig)
		if config.Linux == nil {
			config.Linux = &runtimeapi.LinuxPodSandboxConfig{}
		}
		if req.GetOverhead() != nil {
			config.Linux.Overhead = req.GetOverhead()
		}
		if req.GetResources() != nil {
			config.Linux.Resources = req.GetResources()
		}
		rec.Config.value = config
	})
	return &runtimeapi.UpdatePodSandboxResourcesResponse{}, err
}

// UpdateRuntimeConfig tells the pod network the node's address ranges.
func (r *Runtime) UpdateRuntimeConfig(ctx context.Context, req *runtimeapi.UpdateRuntimeConfigRequest) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	prefixes, err := parsePrefixes(req.GetRuntimeConfig().GetNetworkConfig().GetPodCidr())
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "invalid CIDR: %v", err)
	}
	if len(prefixes) > 0 && r.cfg.Network != nil {
		if err := r.cfg.Network.SetPodCIDRs(ctx, prefixes); err != nil {
			return nil, err
		}
	}
	return &runtimeapi.UpdateRuntimeConfigResponse{}, nil
}

// ReopenContainerLog opens the log anew after the kubelet has renamed it.
func (r *Runtime) ReopenContainerLog(_ context.Context, req *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	c, err := r.findContainer(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	rec := c.record.Load()
	if rec.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, status.Errorf(codes.FailedPrecondition, "container %q is not running", rec.ID)
	}
	m, err := c.sandbox.connection()
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ReopenContainerLogResponse{}, m.ReopenLog(rec.ID)
}
