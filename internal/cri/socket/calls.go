// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The calls of the CRI, one to one.

// Version is cri.Runtime's.
func (c *Client) Version(ctx context.Context, req *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return c.runtime.Version(ctx, req)
}

// Status is cri.Runtime's.
func (c *Client) Status(ctx context.Context, req *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	return c.runtime.Status(ctx, req)
}

// RuntimeConfig is cri.Runtime's.
func (c *Client) RuntimeConfig(ctx context.Context, req *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	return c.runtime.RuntimeConfig(ctx, req)
}

// UpdateRuntimeConfig is cri.Runtime's.
func (c *Client) UpdateRuntimeConfig(ctx context.Context, req *runtimeapi.UpdateRuntimeConfigRequest) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	return c.runtime.UpdateRuntimeConfig(ctx, req)
}

// RunPodSandbox is cri.Runtime's.
func (c *Client) RunPodSandbox(ctx context.Context, req *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	return c.runtime.RunPodSandbox(ctx, req)
}

// StopPodSandbox is cri.Runtime's.
func (c *Client) StopPodSandbox(ctx context.Context, req *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	return c.runtime.StopPodSandbox(ctx, req)
}

// RemovePodSandbox is cri.Runtime's.
func (c *Client) RemovePodSandbox(ctx context.Context, req *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	return c.runtime.RemovePodSandbox(ctx, req)
}

// PodSandboxStatus is cri.Runtime's.
func (c *Client) PodSandboxStatus(ctx context.Context, req *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	return c.runtime.PodSandboxStatus(ctx, req)
}

// ListPodSandbox is cri.Runtime's.
func (c *Client) ListPodSandbox(ctx context.Context, req *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	return c.runtime.ListPodSandbox(ctx, req)
}

// PodSandboxStats is cri.Runtime's.
func (c *Client) PodSandboxStats(ctx context.Context, req *runtimeapi.PodSandboxStatsRequest) (*runtimeapi.PodSandboxStatsResponse, error) {
	return c.runtime.PodSandboxStats(ctx, req)
}

// ListPodSandboxStats is cri.Runtime's.
func (c *Client) ListPodSandboxStats(ctx context.Context, req *runtimeapi.ListPodSandboxStatsRequest) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	return c.runtime.ListPodSandboxStats(ctx, req)
}

// UpdatePodSandboxResources is cri.Runtime's.
func (c *Client) UpdatePodSandboxResources(ctx context.Context, req *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	return c.runtime.UpdatePodSandboxResources(ctx, req)
}

// CreateContainer is cri.Runtime's.
func (c *Client) CreateContainer(ctx context.Context, req *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	return c.runtime.CreateContainer(ctx, req)
}

// StartContainer is cri.Runtime's.
func (c *Client) StartContainer(ctx context.Context, req *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	return c.runtime.StartContainer(ctx, req)
}

// StopContainer is cri.Runtime's.
func (c *Client) StopContainer(ctx context.Context, req *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	return c.runtime.StopContainer(ctx, req)
}

// RemoveContainer is cri.Runtime's.
func (c *Client) RemoveContainer(ctx context.Context, req *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	return c.runtime.RemoveContainer(ctx, req)
}

// ListContainers is cri.Runtime's.
func (c *Client) ListContainers(ctx context.Context, req *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	return c.runtime.ListContainers(ctx, req)
}

// ContainerStatus is cri.Runtime's.
func (c *Client) ContainerStatus(ctx context.Context, req *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	return c.runtime.ContainerStatus(ctx, req)
}

// UpdateContainerResources is cri.Runtime's.
func (c *Client) UpdateContainerResources(ctx context.Context, req *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	return c.runtime.UpdateContainerResources(ctx, req)
}

// ReopenContainerLog is cri.Runtime's.
func (c *Client) ReopenContainerLog(ctx context.Context, req *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	return c.runtime.ReopenContainerLog(ctx, req)
}

// ContainerStats is cri.Runtime's.
func (c *Client) ContainerStats(ctx context.Context, req *runtimeapi.ContainerStatsRequest) (*runtimeapi.ContainerStatsResponse, error) {
	return c.runtime.ContainerStats(ctx, req)
}

// ListContainerStats is cri.Runtime's.
func (c *Client) ListContainerStats(ctx context.Context, req *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error) {
	return c.runtime.ListContainerStats(ctx, req)
}

// ExecSync is cri.Runtime's.
func (c *Client) ExecSync(ctx context.Context, req *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	return c.runtime.ExecSync(ctx, req)
}

// Exec is cri.Runtime's.
func (c *Client) Exec(ctx context.Context, req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	return c.runtime.Exec(ctx, req)
}

// Attach is cri.Runtime's.
func (c *Client) Attach(ctx context.Context, req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	return c.runtime.Attach(ctx, req)
}

// PortForward is cri.Runtime's.
func (c *Client) PortForward(ctx context.Context, req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	return c.runtime.PortForward(ctx, req)
}

// ListImages is cri.Images's.
func (c *Client) ListImages(ctx context.Context, req *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	return c.images.ListImages(ctx, req)
}

// ImageStatus is cri.Images's.
func (c *Client) ImageStatus(ctx context.Context, req *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	return c.images.ImageStatus(ctx, req)
}

// PullImage is cri.Images's.
func (c *Client) PullImage(ctx context.Context, req *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	return c.images.PullImage(ctx, req)
}

// RemoveImage is cri.Images's.
func (c *Client) RemoveImage(ctx context.Context, req *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	return c.images.RemoveImage(ctx, req)
}

// ImageFsInfo is cri.Images's.
func (c *Client) ImageFsInfo(ctx context.Context, req *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	return c.images.ImageFsInfo(ctx, req)
}

// CheckpointContainer is cri.Checkpoints'.
func (c *Client) CheckpointContainer(ctx context.Context, req *runtimeapi.CheckpointContainerRequest) (*runtimeapi.CheckpointContainerResponse, error) {
	return c.runtime.CheckpointContainer(ctx, req)
}

// CheckpointPod is cri.Checkpoints'.
func (c *Client) CheckpointPod(ctx context.Context, req *runtimeapi.CheckpointPodRequest) (*runtimeapi.CheckpointPodResponse, error) {
	return c.runtime.CheckpointPod(ctx, req)
}

// RestorePod is cri.Checkpoints'.
func (c *Client) RestorePod(ctx context.Context, req *runtimeapi.RestorePodRequest) (*runtimeapi.RestorePodResponse, error) {
	return c.runtime.RestorePod(ctx, req)
}
