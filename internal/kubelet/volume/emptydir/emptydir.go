// SPDX-License-Identifier: Apache-2.0

// Package emptydir gives pods scratch space: a directory of the node or memory.
package emptydir

import (
	"context"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"kaji/internal/kubelet/volume"
)

// Driver implements volume.Driver.
type Driver struct {
	// Mounter mounts memory.
	Mounter volume.Mounter
	// Memory is the node's memory in bytes, which bounds volumes in memory.
	Memory int64
}

var _ volume.Driver = (*Driver)(nil)

// Name implements volume.Driver.
func (*Driver) Name() string { return "kubernetes.io/empty-dir" }

// Handles implements volume.Driver.
func (*Driver) Handles(s volume.Source) bool { return s.Volume.EmptyDir != nil }

// Setup implements volume.Driver.
func (d *Driver) Setup(_ context.Context, r volume.Request) (volume.Mounted, error) {
	spec := r.Source.Volume.EmptyDir
	mounted := volume.Mounted{Path: r.Dir}
	inMemory := spec.Medium == corev1.StorageMediumMemory
	if info, err := os.Stat(r.Dir); err == nil && info.IsDir() {
		if !inMemory {
			return mounted, nil
		}
		if ok, err := d.Mounter.Mounted(r.Dir); err != nil || ok {
			return mounted, err
		}
	}
	if err := os.MkdirAll(r.Dir, 0o777); err != nil {
		return mounted, fmt.Errorf("make the directory: %w", err)
	}
	if err := os.Chmod(r.Dir, 0o777); err != nil { // whatever the umask is
		return mounted, fmt.Errorf("make the directory: %w", err)
	}
	switch {
	case inMemory:
		if err := d.Mounter.Tmpfs(r.Dir, d.size(r.Pod, spec)); err != nil {
			return mounted, err
		}
	case spec.Medium != corev1.StorageMediumDefault:
		return mounted, d.hugePages(r.Dir, spec.Medium)
	}
	return mounted, r.Own(r.Dir, nil)
}

// size bounds a volume in memory by its limit, by the pod's and by the node.
func (d *Driver) size(pod *corev1.Pod, spec *corev1.EmptyDirVolumeSource) int64 {
	size := d.Memory
	limits := resource.PodLimits(pod, resource.PodResourcesOptions{})
	if limit := limits.Memory().Value(); limit > 0 && allLimited(pod) {
		size = min(size, limit)
	}
	if spec.SizeLimit != nil && spec.SizeLimit.Value() > 0 {
		size = min(size, spec.SizeLimit.Value())
	}
	return size
}

func allLimited(pod *corev1.Pod) bool {
	if pod.Spec.Resources != nil && !pod.Spec.Resources.Limits.Memory().IsZero() {
		return true
	}
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Resources.Limits.Memory().IsZero() {
			return false
		}
	}
	return true
}

func (d *Driver) hugePages(dir string, medium corev1.StorageMedium) error {
	options := ""
	if size := string(medium)[min(len("HugePages"), len(medium)):]; size != "" {
		options = "pagesize=" + size[1:len(size)-1]
	}
	return d.Mounter.Mount("nodev", dir, "hugetlbfs", 0, options)
}

// Teardown implements volume.Driver.
func (d *Driver) Teardown(_ context.Context, dir, _, _ string) error {
	if err := d.Mounter.Unmount(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
