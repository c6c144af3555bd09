// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/container/image"
)

// StopPodSandbox ends the containers of a pod, if any run, and its network. It
// may be repeated.
func (r *Runtime) StopPodSandbox(ctx context.Context, req *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	s, err := r.findSandbox(req.GetPodSandboxId())
	if isNotFound(err) {
		return &runtimeapi.StopPodSandboxResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	s.op.Lock()
	defer s.op.Unlock()
	wasReady := s.record.Load().Ready
	for _, c := range r.containersOf(s.record.Load().ID) {
		if err := r.kill(ctx, c, 0); err != nil {
			return nil, fmt.Errorf("failed to stop container %q: %w", c.record.Load().ID, err)
		}
	}
	if err := r.stopSandbox(ctx, s); err != nil {
		return nil, err
	}
	if wasReady {
		r.emitSandbox(s, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

// stopSandbox ends the network, the monitor and the mounts of a sandbox; each
// step succeeds when there is nothing left to do.
func (r *Runtime) stopSandbox(ctx context.Context, s *sandbox) error {
	rec := s.record.Load()
	if rec.Ready { // before its monitor ends, so that nobody takes it for lost
		if err := r.updateSandbox(s, func(rec *sandboxRecord) { rec.Ready = false }); err != nil {
			return err
		}
	}
	errs := []error{r.disconnectSandbox(ctx, s)}
	if m, err := s.connection(); err == nil {
		if err := m.Stop(); err != nil {
			r.log.Warn("the pod's monitor does not stop; killing it", "sandbox", rec.ID, "err", err)
		}
	}
	for _, p := range []process{rec.PausePid, rec.MonitorPid} {
		if p.alive() {
			_ = unix.Kill(p.Pid, unix.SIGKILL)
		}
	}
	errs = append(errs, s.disconnect(), image.Unmount(filepath.Join(r.sandboxState(rec.ID), "shm")), r.cgroups.Remove(rec.Cgroup))
	return errors.Join(errs...)
}

// disconnectSandbox ends the network of a sandbox. A network that fails keeps the
// namespace, so that it can be asked again.
func (r *Runtime) disconnectSandbox(ctx context.Context, s *sandbox) error {
	rec := s.record.Load()
	if rec.Networked && r.cfg.Network != nil {
		if err := r.cfg.Network.Teardown(ctx, r.networkSandbox(rec)); err != nil {
			return fmt.Errorf("failed to destroy network for sandbox %q: %w", rec.ID, err)
		}
	}
	if err := unpin(r.netns(rec.ID)); err != nil || !rec.Networked {
		return err
	}
	return r.updateSandbox(s, func(rec *sandboxRecord) { rec.Networked = false })
}

// unpin lets a network namespace go.
func unpin(path string) error {
	if err := image.Unmount(path); err != nil {
		return err
	}
	return removeFile(path)
}

// RemovePodSandbox removes a sandbox with its containers, running or not.
func (r *Runtime) RemovePodSandbox(ctx context.Context, req *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	s, err := r.findSandbox(req.GetPodSandboxId())
	if isNotFound(err) {
		return &runtimeapi.RemovePodSandboxResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	id := s.record.Load().ID
	for _, c := range r.containersOf(id) {
		if err := r.removeContainer(ctx, c); err != nil {
			return nil, fmt.Errorf("failed to remove container %q: %w", c.record.Load().ID, err)
		}
	}
	s.op.Lock()
	defer s.op.Unlock()
	if err := r.stopSandbox(ctx, s); err != nil {
		return nil, err
	}
	if err := r.deleteSandbox(s); err != nil {
		return nil, err
	}
	r.mu.Lock()
	delete(r.sandboxes, id)
	r.mu.Unlock()
	r.emitSandbox(s, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

func (r *Runtime) deleteSandbox(s *sandbox) error {
	id := s.record.Load().ID
	return errors.Join(os.RemoveAll(r.sandboxState(id)), os.RemoveAll(r.sandboxRoot(id)))
}
