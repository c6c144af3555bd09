// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"context"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/cri"
)

// Runtime counts and times what a container runtime is asked for.
// A request that is no stream and runs nothing in a container fails after timeout, or
// twice that where a sandbox is made; zero is no bound.
func (m *Meter) Runtime(r cri.Runtime, timeout time.Duration) cri.Runtime {
	return &runtime{r, m, timeout}
}

// Images does so for images.
func (m *Meter) Images(i cri.Images) cri.Images { return &images{i, m} }

type runtime struct {
	cri.Runtime
	m       *Meter
	timeout time.Duration
}

// within bounds a request by so many times the timeout, and grace.
func within[Q, A any](r *runtime, times int, grace time.Duration, call func(context.Context, Q) (A, error)) func(context.Context, Q) (A, error) {
	if r.timeout <= 0 {
		return call
	}
	return func(ctx context.Context, q Q) (A, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Duration(times)*r.timeout+grace)
		defer cancel()
		return call(ctx, q)
	}
}

type images struct {
	cri.Images
	m *Meter
}

func timed[Q, A any](ctx context.Context, m *Meter, operation string, q Q, call func(context.Context, Q) (A, error)) (A, error) {
	begun := time.Now()
	m.Operations.WithLabelValues(operation).Inc()
	answer, err := call(ctx, q)
	m.OperationTime.WithLabelValues(operation).Observe(time.Since(begun).Seconds())
	if err != nil {
		m.OperationErrors.WithLabelValues(operation).Inc()
	}
	return answer, err
}

// RunPodSandbox implements cri.Runtime.
func (r *runtime) RunPodSandbox(ctx context.Context, q *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	begun := time.Now()
	answer, err := timed(ctx, r.m, "run_podsandbox", q, within(r, 2, 0, r.Runtime.RunPodSandbox))
	r.m.SandboxTime.WithLabelValues(q.RuntimeHandler).Observe(time.Since(begun).Seconds())
	if err != nil {
		r.m.SandboxFailures.WithLabelValues(q.RuntimeHandler).Inc()
	}
	return answer, err
}

// StopPodSandbox implements cri.Runtime.
func (r *runtime) StopPodSandbox(ctx context.Context, q *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	return timed(ctx, r.m, "stop_podsandbox", q, within(r, 1, 0, r.Runtime.StopPodSandbox))
}

// RemovePodSandbox implements cri.Runtime.
func (r *runtime) RemovePodSandbox(ctx context.Context, q *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	return timed(ctx, r.m, "remove_podsandbox", q, within(r, 1, 0, r.Runtime.RemovePodSandbox))
}

// PodSandboxStatus implements cri.Runtime.
func (r *runtime) PodSandboxStatus(ctx context.Context, q *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	return timed(ctx, r.m, "podsandbox_status", q, within(r, 1, 0, r.Runtime.PodSandboxStatus))
}

// ListPodSandbox implements cri.Runtime.
func (r *runtime) ListPodSandbox(ctx context.Context, q *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	return timed(ctx, r.m, "list_podsandbox", q, within(r, 1, 0, r.Runtime.ListPodSandbox))
}

// CreateContainer implements cri.Runtime.
func (r *runtime) CreateContainer(ctx context.Context, q *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	return timed(ctx, r.m, "create_container", q, within(r, 1, 0, r.Runtime.CreateContainer))
}

// StartContainer implements cri.Runtime.
func (r *runtime) StartContainer(ctx context.Context, q *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	return timed(ctx, r.m, "start_container", q, within(r, 1, 0, r.Runtime.StartContainer))
}

// StopContainer implements cri.Runtime.
func (r *runtime) StopContainer(ctx context.Context, q *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	return timed(ctx, r.m, "stop_container", q, within(r, 1, time.Duration(q.Timeout)*time.Second, r.Runtime.StopContainer))
}

// RemoveContainer implements cri.Runtime.
func (r *runtime) RemoveContainer(ctx context.Context, q *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	return timed(ctx, r.m, "remove_container", q, within(r, 1, 0, r.Runtime.RemoveContainer))
}

// ListContainers implements cri.Runtime.
func (r *runtime) ListContainers(ctx context.Context, q *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	return timed(ctx, r.m, "list_containers", q, within(r, 1, 0, r.Runtime.ListContainers))
}

// ContainerStatus implements cri.Runtime.
func (r *runtime) ContainerStatus(ctx context.Context, q *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	return timed(ctx, r.m, "container_status", q, within(r, 1, 0, r.Runtime.ContainerStatus))
}

// UpdateContainerResources implements cri.Runtime.
func (r *runtime) UpdateContainerResources(ctx context.Context, q *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	return timed(ctx, r.m, "update_container", q, within(r, 1, 0, r.Runtime.UpdateContainerResources))
}

// ExecSync implements cri.Runtime.
func (r *runtime) ExecSync(ctx context.Context, q *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	return timed(ctx, r.m, "exec_sync", q, r.Runtime.ExecSync)
}

// Exec implements cri.Runtime.
func (r *runtime) Exec(ctx context.Context, q *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	return timed(ctx, r.m, "exec", q, within(r, 1, 0, r.Runtime.Exec))
}

// Attach implements cri.Runtime.
func (r *runtime) Attach(ctx context.Context, q *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	return timed(ctx, r.m, "attach", q, within(r, 1, 0, r.Runtime.Attach))
}

// PortForward implements cri.Runtime.
func (r *runtime) PortForward(ctx context.Context, q *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	return timed(ctx, r.m, "port_forward", q, within(r, 1, 0, r.Runtime.PortForward))
}

// Status implements cri.Runtime.
func (r *runtime) Status(ctx context.Context, q *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	return timed(ctx, r.m, "status", q, within(r, 1, 0, r.Runtime.Status))
}

// Version implements cri.Runtime.
func (r *runtime) Version(ctx context.Context, q *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return timed(ctx, r.m, "version", q, within(r, 1, 0, r.Runtime.Version))
}

// ListContainerStats implements cri.Runtime.
func (r *runtime) ListContainerStats(ctx context.Context, q *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error) {
	return timed(ctx, r.m, "list_container_stats", q, within(r, 1, 0, r.Runtime.ListContainerStats))
}

// ListPodSandboxStats implements cri.Runtime.
func (r *runtime) ListPodSandboxStats(ctx context.Context, q *runtimeapi.ListPodSandboxStatsRequest) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	return timed(ctx, r.m, "list_podsandbox_stats", q, within(r, 1, 0, r.Runtime.ListPodSandboxStats))
}

// ListImages implements cri.Images.
func (r *images) ListImages(ctx context.Context, q *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	return timed(ctx, r.m, "list_images", q, r.Images.ListImages)
}

// ImageStatus implements cri.Images.
func (r *images) ImageStatus(ctx context.Context, q *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	return timed(ctx, r.m, "image_status", q, r.Images.ImageStatus)
}

// PullImage implements cri.Images.
func (r *images) PullImage(ctx context.Context, q *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	return timed(ctx, r.m, "pull_image", q, r.Images.PullImage)
}

// RemoveImage implements cri.Images.
func (r *images) RemoveImage(ctx context.Context, q *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	return timed(ctx, r.m, "remove_image", q, r.Images.RemoveImage)
}

// ImageFsInfo implements cri.Images.
func (r *images) ImageFsInfo(ctx context.Context, q *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	return timed(ctx, r.m, "image_fs_info", q, r.Images.ImageFsInfo)
}
