// SPDX-License-Identifier: Apache-2.0

// Package nfs mounts exports of NFS servers for pods, by the host's mount
// program: only that speaks to the host's helpers.
package nfs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	mountutils "k8s.io/mount-utils"

	"kaji/internal/kubelet/volume"
)

// Driver implements volume.Driver.
type Driver struct{ Mounter volume.Mounter }

var _ volume.Driver = (*Driver)(nil)

// Name implements volume.Driver.
func (*Driver) Name() string { return "kubernetes.io/nfs" }

func source(s volume.Source) *corev1.NFSVolumeSource {
	if s.Persistent != nil {
		return s.Persistent.Spec.NFS
	}
	return s.Volume.NFS
}

// Handles implements volume.Driver.
func (*Driver) Handles(s volume.Source) bool { return source(s) != nil }

// Setup implements volume.Driver.
func (d *Driver) Setup(_ context.Context, r volume.Request) (volume.Mounted, error) {
	spec := source(r.Source)
	mounted := volume.Mounted{Path: r.Dir, ReadOnly: spec.ReadOnly || r.Source.ReadOnly}
	done, err := d.Mounter.Mounted(r.Dir)
	if err != nil || done {
		return mounted, err
	}
	if err := os.MkdirAll(r.Dir, 0o750); err != nil {
		return mounted, fmt.Errorf("make the directory: %w", err)
	}
	server := spec.Server
	if ip := net.ParseIP(server); ip != nil && strings.Contains(server, ":") {
		server = "[" + server + "]"
	}
	var options []string
	if mounted.ReadOnly {
		options = append(options, "ro")
	}
	if r.Source.Persistent != nil {
		options = append(options, r.Source.Persistent.Spec.MountOptions...)
	}
	if err := mountutils.New("").Mount(server+":"+spec.Path, r.Dir, "nfs", options); err != nil {
		return mounted, errors.Join(err, os.Remove(r.Dir))
	}
	return mounted, nil
}

// Teardown implements volume.Driver.
func (d *Driver) Teardown(_ context.Context, dir, _, _ string) error {
	if err := d.Mounter.Unmount(dir); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the directory: %w", err)
	}
	return nil
}
