// SPDX-License-Identifier: Apache-2.0

package podrun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/actual"
)

// Prune removes dead containers of a pod that runs: of each name the newest
// two stay, for their logs and their last state. Sandboxes that are not the
// newest and have no container left go too.
func (r *Runner) Prune(ctx context.Context, pod *corev1.Pod, a *actual.Pod) error {
	kept := map[string]int{}
	used := map[string]bool{}
	var errs []error
	for _, c := range a.Containers {
		kept[c.Name]++
		if c.Exited() && kept[c.Name] > 2 {
			errs = append(errs, r.remove(ctx, pod.Name, pod.Namespace, c))
			continue
		}
		used[c.SandboxID] = true
	}
	for i, s := range a.Sandboxes {
		if i == 0 || used[s.Id] || s.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			continue
		}
		if _, err := r.cfg.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.Id}); err != nil {
			errs = append(errs, fmt.Errorf("remove sandbox %s: %w", s.Id, err))
		}
	}
	return errors.Join(errs...)
}

// Remove removes everything the runtime and the log directory have of a pod
// that ended.
func (r *Runner) Remove(ctx context.Context, a *actual.Pod) error {
	var errs []error
	for _, c := range a.Containers {
		errs = append(errs, r.remove(ctx, a.Name, a.Namespace, c))
	}
	for _, s := range a.Sandboxes {
		if s.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			if _, err := r.cfg.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.Id}); err != nil {
				errs = append(errs, fmt.Errorf("stop sandbox %s: %w", s.Id, err))
				continue
			}
		}
		if _, err := r.cfg.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.Id}); err != nil {
			errs = append(errs, fmt.Errorf("remove sandbox %s: %w", s.Id, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	dir := filepath.Join(r.cfg.LogDir, fmt.Sprintf("%s_%s_%s", a.Namespace, a.Name, a.UID))
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the pod's logs: %w", err)
	}
	return nil
}

// removeContainer leaves the container's log.
func (r *Runner) removeContainer(ctx context.Context, pod, namespace string, c *actual.Container) error {
	if _, err := r.cfg.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.ID}); err != nil {
		return fmt.Errorf("remove container %s: %w", c.ID, err)
	}
	if r.cfg.LegacyLogDir != "" {
		link := filepath.Join(r.cfg.LegacyLogDir, legacyLogName(pod, namespace, c.Name, c.ID))
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the link to a log: %w", err)
		}
	}
	return nil
}

// remove takes a container away with its logs.
func (r *Runner) remove(ctx context.Context, pod, namespace string, c *actual.Container) error {
	if err := r.removeContainer(ctx, pod, namespace, c); err != nil {
		return err
	}
	if c.LogPath != "" && strings.HasPrefix(c.LogPath, r.cfg.LogDir) {
		logs, err := filepath.Glob(c.LogPath + "*") // rotated ones too
		if err != nil {
			return fmt.Errorf("find logs of container %s: %w", c.ID, err)
		}
		for _, log := range logs {
			if err := os.Remove(log); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove log %s: %w", log, err)
			}
		}
	}
	return nil
}
