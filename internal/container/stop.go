// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/container/image"
	"kaji/internal/container/oci"
)

// killWait bounds the wait for a killed container: one that hangs in the
// kernel cannot be waited for.
const killWait = 30 * time.Second

// StopContainer asks a container to end and kills it after the timeout. It may
// be repeated.
func (r *Runtime) StopContainer(ctx context.Context, req *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	c, err := r.findContainer(req.GetContainerId())
	if isNotFound(err) {
		return &runtimeapi.StopContainerResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	return &runtimeapi.StopContainerResponse{}, r.kill(ctx, c, time.Duration(req.GetTimeout())*time.Second)
}

// kill ends a running container, kindly for as long as grace lasts.
func (r *Runtime) kill(ctx context.Context, c *container, grace time.Duration) error {
	rec := c.record.Load()
	if rec.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil
	}
	if grace > 0 {
		if err := rec.Pid.signal(stopSignal(rec)); err != nil {
			return err
		}
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-c.ended:
			return nil
		case <-timer.C:
		case <-ctx.Done():
			return fmt.Errorf("an error occurs during waiting for container %q to be killed: wait container %q: %w", rec.ID, rec.ID, ctx.Err())
		}
	}
	if err := errors.Join(rec.Pid.signal(unix.SIGKILL), r.cgroups.Kill(rec.Cgroup)); err != nil {
		return err
	}
	timer := time.NewTimer(killWait)
	defer timer.Stop()
	select {
	case <-c.ended:
		return nil
	case <-timer.C:
		return fmt.Errorf("container %q does not end although it was killed", rec.ID)
	case <-ctx.Done():
		return fmt.Errorf("an error occurs during waiting for container %q to be killed: wait container %q: %w", rec.ID, rec.ID, ctx.Err())
	}
}

func (p process) signal(sig unix.Signal) error {
	if !p.alive() {
		return nil
	}
	if err := unix.Kill(p.Pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("kill", err)
	}
	return nil
}

// stopSignal is the pod's, the image's or SIGTERM.
func stopSignal(rec *containerRecord) unix.Signal {
	if s := rec.Config.value.GetStopSignal(); s != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		if n := signalNumber(strings.TrimPrefix(s.String(), "SIGNAL_")); n > 0 {
			return n
		}
	}
	if n := signalNumber(rec.StopSignal); n > 0 {
		return n
	}
	return unix.SIGTERM
}

// exited records the end of a container, as the monitor tells it, or as lost
// when the monitor is gone.
func (r *Runtime) exited(c *container) {
	c.exiting.Lock()
	defer c.exiting.Unlock()
	rec := c.record.Load()
	if rec.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return
	}
	exit, ok, err := oci.ReadExit(filepath.Join(r.containerRoot(rec.ID), "exit"))
	if err != nil {
		r.log.Warn("the record of a container's end is unreadable", "container", rec.ID, "err", err)
	}
	reason := "Completed"
	switch {
	case !ok:
		exit, reason = oci.Exit{Code: 255, Time: time.Now()}, "Unknown"
	case exit.Code != 0 && r.outOfMemory(c):
		reason = "OOMKilled"
	case exit.Code != 0:
		reason = "Error"
	}
	if err := r.cleanUp(context.Background(), c); err != nil {
		r.log.Warn("cleaning up after a container", "container", rec.ID, "err", err)
	}
	if err := r.updateContainer(c, func(rec *containerRecord) {
		rec.State, rec.Finished, rec.ExitCode, rec.Reason = runtimeapi.ContainerState_CONTAINER_EXITED, exit.Time, int32(exit.Code), reason
	}); err != nil {
		r.log.Error("recording a container's end", "container", rec.ID, "err", err)
	}
	c.markEnded()
	r.emitContainer(c, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

// outOfMemory says whether the kernel killed a container that has ended for its
// memory.
func (r *Runtime) outOfMemory(c *container) bool {
	rec := c.record.Load()
	if r.cgroups.OOMKills(rec.Cgroup) > 0 {
		return true
	}
	pod := r.cgroups.OOMKillsAround(rec.Cgroup)
	if pod <= rec.OOMKills {
		return false
	}
	// Its scope is gone and the pod's count has grown: that was this one, and
	// no other container's.
	for _, other := range r.containersOf(rec.Sandbox) {
		if other == c || other.record.Load().State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			continue
		}
		if err := r.updateContainer(other, func(rec *containerRecord) { rec.OOMKills = pod }); err != nil {
			r.log.Error("recording a pod's lack of memory", "container", other.record.Load().ID, "err", err)
		}
	}
	return true
}

// cleanUp frees what only a running container needs: processes, the control
// group, libcontainer's state and mounts.
func (r *Runtime) cleanUp(ctx context.Context, c *container) error {
	rec := c.record.Load()
	var errs []error
	if rec.HasHooks {
		errs = append(errs, r.helper.Delete(ctx, r.ociRoot(), rec.ID))
	}
	errs = append(errs, r.cgroups.Remove(rec.Cgroup), os.RemoveAll(filepath.Join(r.ociRoot(), rec.ID)))
	errs = append(errs, unmountBelow(r.containerState(rec.ID)))
	return errors.Join(errs...)
}

// unmountBelow unmounts a container's root file system and image volumes, whether
// or not its record came to know of them.
func unmountBelow(dir string) error {
	mounts, err := names(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, name := range mounts {
		errs = append(errs, image.Unmount(filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}

// RemoveContainer removes a container, killing it if it runs.
func (r *Runtime) RemoveContainer(ctx context.Context, req *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	c, err := r.findContainer(req.GetContainerId())
	if isNotFound(err) {
		return &runtimeapi.RemoveContainerResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	return &runtimeapi.RemoveContainerResponse{}, r.removeContainer(ctx, c)
}

func (r *Runtime) removeContainer(ctx context.Context, c *container) error {
	if err := r.kill(ctx, c, 0); err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	id := c.record.Load().ID
	if _, err := r.findContainer(id); isNotFound(err) {
		return nil // another removal was faster
	}
	if m, err := c.sandbox.connection(); err == nil {
		_ = m.Forget(id) // it may not know a container that never started
	}
	if err := r.deleteContainer(ctx, c); err != nil {
		return err
	}
	r.mu.Lock()
	delete(r.containers, id)
	r.mu.Unlock()
	r.emitContainer(c, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	return nil
}

// deleteContainer removes every trace of a container that does not run.
func (r *Runtime) deleteContainer(ctx context.Context, c *container) error {
	id := c.record.Load().ID
	if err := r.cleanUp(ctx, c); err != nil {
		return err
	}
	if c.release != nil {
		c.release()
		c.release = nil
	}
	return errors.Join(os.RemoveAll(r.containerState(id)), os.RemoveAll(r.containerRoot(id)))
}
