// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/container/oci"
)

// StartContainer runs a created container.
func (r *Runtime) StartContainer(ctx context.Context, req *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	c, err := r.findContainer(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	c.op.Lock()
	defer c.op.Unlock()
	rec := c.record.Load()
	if rec.State != runtimeapi.ContainerState_CONTAINER_CREATED {
		return nil, status.Errorf(codes.FailedPrecondition, "failed to set starting state for container %q: container is in %v state", rec.ID, rec.State)
	}
	if !c.sandbox.record.Load().Ready {
		return nil, status.Errorf(codes.FailedPrecondition, "sandbox container %q is not running", rec.Sandbox)
	}
	// A client that goes away must not leave half a container.
	if err := r.start(context.WithoutCancel(ctx), c); err != nil {
		err = fmt.Errorf("OCI runtime create failed: %w", err)
		undo := r.cleanUp(context.WithoutCancel(ctx), c)
		now := time.Now()
		write := r.updateContainer(c, func(rec *containerRecord) {
			rec.State, rec.Finished = runtimeapi.ContainerState_CONTAINER_EXITED, now
			rec.ExitCode, rec.Reason, rec.Message = 128, "StartError", err.Error()
		})
		c.markEnded()
		r.emitContainer(c, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
		if err := errors.Join(undo, write); err != nil {
			r.log.Warn("cleaning up after a failed start", "container", rec.ID, "err", err)
		}
		return nil, err
	}
	r.emitContainer(c, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	return &runtimeapi.StartContainerResponse{}, nil
}

func (r *Runtime) start(ctx context.Context, c *container) error {
	rec := c.record.Load()
	m, err := c.sandbox.connection()
	if err != nil {
		return err
	}
	if rec.LogPath != "" {
		if err := os.MkdirAll(filepath.Dir(rec.LogPath), 0o755); err != nil {
			return err
		}
	}
	what := oci.Container{
		ID: rec.ID, Root: r.ociRoot(), Bundle: r.containerRoot(rec.ID),
		Terminal: rec.Config.value.GetTty(), Stdin: rec.Config.value.GetStdin(),
		LogPath: rec.LogPath, ExitPath: filepath.Join(r.containerRoot(rec.ID), "exit"),
	}
	var pid int
	if rec.Restore {
		pid, err = r.restore(ctx, m, what)
	} else {
		pid, err = m.Create(ctx, what)
	}
	if err != nil {
		return err
	}
	kills := r.cgroups.OOMKillsAround(rec.Cgroup)
	// On disk before the program runs: a restart must find what runs.
	if err := r.updateContainer(c, func(rec *containerRecord) {
		rec.State, rec.Started, rec.Pid = runtimeapi.ContainerState_CONTAINER_RUNNING, time.Now(), newProcess(pid)
		rec.OOMKills = kills
	}); err != nil {
		return err
	}
	if rec.Restore {
		return os.RemoveAll(filepath.Join(r.containerRoot(rec.ID), restoreDir))
	}
	return m.Start(r.ociRoot(), rec.ID, pid)
}
