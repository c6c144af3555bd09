// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/app/home"
	"kaji/internal/cni/mesh"
	"kaji/internal/cni/veth"
	"kaji/internal/container"
	"kaji/internal/policy"
	"kaji/internal/proxy"
)

// Remove ends the containers of a node whose process has ended, and takes
// its rules and links away; those stay where another cluster shares the network.
func Remove(ctx context.Context, name string, dir home.Dir, shared bool) error {
	network := veth.New(veth.Config{})
	state := filepath.Join(StateRoot, name)
	if _, err := os.Stat(dir.Runtime()); err == nil {
		pods, err := former(dir, network)
		if err != nil {
			return err
		}
		r, err := container.New(container.Config{Root: dir.Runtime(), State: filepath.Join(state, "container"), Network: pods,
			CgroupRoot: cgroupRoot(name), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return fmt.Errorf("container runtime: %w", err)
		}
		inner, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- r.Run(inner) }()
		err = removeSandboxes(ctx, r)
		stop()
		if err = errors.Join(err, <-done); err != nil {
			return err
		}
	}
	errs := []error{removeGroups(name), dropRoot(dir, StockRoot)}
	if !shared {
		errs = append(errs, proxy.Cleanup(), policy.Cleanup(), mesh.Cleanup(), network.Remove(), dropAddresses(name))
	}
	return errors.Join(append(errs, os.RemoveAll(state))...)
}

func removeSandboxes(ctx context.Context, r *container.Runtime) error {
	all, err := r.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range all.Items {
		if _, err := r.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.Id}); err != nil {
			errs = append(errs, fmt.Errorf("stopping pod %s/%s: %w", s.Metadata.Namespace, s.Metadata.Name, err))
			continue
		}
		_, err := r.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.Id})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
