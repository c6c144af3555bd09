// SPDX-License-Identifier: Apache-2.0

// Package local gives pods persistent volumes that are directories or block
// devices of this node. A directory is bound into the pod's own; a device is
// handed on as it is, or carries a file system that is made at first use.
package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	utilexec "k8s.io/utils/exec"

	corev1 "k8s.io/api/core/v1"
	mountutils "k8s.io/mount-utils"

	"kaji/internal/kubelet/volume"
)

// Driver implements volume.Driver.
type Driver struct {
	Mounter volume.Mounter
	// DevicesDir is where devices with a file system are mounted for all pods.
	DevicesDir string
	// PodsDir is "<root>/pods".
	PodsDir string
}

var _ volume.Driver = (*Driver)(nil)

// Name implements volume.Driver.
func (*Driver) Name() string { return "kubernetes.io/local-volume" }

// Handles implements volume.Driver.
func (*Driver) Handles(s volume.Source) bool {
	return s.Persistent != nil && s.Persistent.Spec.Local != nil
}

// Setup implements volume.Driver.
func (d *Driver) Setup(_ context.Context, r volume.Request) (volume.Mounted, error) {
	pv := r.Source.Persistent
	path := filepath.Clean(pv.Spec.Local.Path)
	if r.Source.Block() {
		return volume.Mounted{Path: path, Block: true, ReadOnly: r.Source.ReadOnly}, device(path)
	}
	mounted := volume.Mounted{Path: r.Dir, ReadOnly: r.Source.ReadOnly}
	done, err := d.Mounter.Mounted(r.Dir)
	if err != nil || done {
		return mounted, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return mounted, fmt.Errorf("path %q does not exist", path)
	}
	if !info.IsDir() {
		if path, err = d.global(pv, path); err != nil {
			return mounted, err
		}
	}
	if err := d.shared(r, path); err != nil {
		return mounted, err
	}
	if err := os.MkdirAll(r.Dir, 0o750); err != nil {
		return mounted, fmt.Errorf("make the directory: %w", err)
	}
	if err := d.Mounter.Bind(path, r.Dir, r.Source.ReadOnly); err != nil {
		return mounted, errors.Join(err, os.Remove(r.Dir))
	}
	if r.Source.ReadOnly {
		return mounted, nil
	}
	var policy *corev1.PodFSGroupChangePolicy
	if s := r.Pod.Spec.SecurityContext; s != nil {
		policy = s.FSGroupChangePolicy
	}
	return mounted, r.Own(r.Dir, policy)
}

// shared tells of a pod that wants another group than the volume has, whose files
// belong to pods that have it already.
func (d *Driver) shared(r volume.Request, path string) error {
	if r.FSGroup == nil || r.Warn == nil {
		return nil
	}
	others, err := filepath.Glob(filepath.Join(d.PodsDir, "*", "volumes", "kubernetes.io~local-volume", r.Source.Persistent.Name))
	if err != nil {
		return err
	}
	for _, dir := range others {
		if mounted, err := d.Mounter.Mounted(dir); err != nil || !mounted || dir == r.Dir {
			continue // it is being taken away, or this pod's
		}
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("failed to check fsGroup for %s (%w)", path, err)
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && int64(stat.Gid) != *r.FSGroup {
			r.Warn("AlreadyMountedVolume", fmt.Sprintf("The requested fsGroup is %d, but the volume %s has GID %d. The volume may not be shareable.", *r.FSGroup, r.Source.Persistent.Name, stat.Gid))
		}
		return nil
	}
	return nil
}

func device(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at the device: %w", err)
	}
	if info.Mode()&os.ModeDevice == 0 || info.Mode()&os.ModeCharDevice != 0 {
		return fmt.Errorf("%s is not a block device", path)
	}
	return nil
}

// global mounts a device once for the node, with a file system made if need be.
func (d *Driver) global(pv *corev1.PersistentVolume, path string) (string, error) {
	if err := device(path); err != nil {
		return "", err
	}
	dir := filepath.Join(d.DevicesDir, pv.Name)
	done, err := d.Mounter.Mounted(dir)
	if err != nil || done {
		return dir, err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("make the directory of the device: %w", err)
	}
	fsType := "ext4"
	if pv.Spec.Local.FSType != nil && *pv.Spec.Local.FSType != "" {
		fsType = *pv.Spec.Local.FSType
	}
	formatter := mountutils.NewSafeFormatAndMount(mountutils.New(""), utilexec.New())
	if err := formatter.FormatAndMount(path, dir, fsType, pv.Spec.MountOptions); err != nil {
		return "", fmt.Errorf("mount the device: %w", err)
	}
	return dir, nil
}

// Teardown implements volume.Driver.
func (d *Driver) Teardown(_ context.Context, dir, _, _ string) error {
	if err := d.Mounter.Unmount(dir); err != nil {
		return err
	}
	// Remove, never RemoveAll: below a mount that was missed lies user data.
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the directory: %w", err)
	}
	return nil
}
