// SPDX-License-Identifier: Apache-2.0

// Package imagevolume shows pods the files of an image (KEP-4639). The runtime
// mounts them; the driver only says which image.
package imagevolume

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/volume"
)

// Driver implements volume.Driver.
type Driver struct{}

var _ volume.Driver = (*Driver)(nil)

// Name implements volume.Driver.
func (*Driver) Name() string { return "kubernetes.io/image" }

// Handles implements volume.Driver.
func (*Driver) Handles(s volume.Source) bool { return s.Volume.Image != nil }

// Setup implements volume.Driver.
func (*Driver) Setup(_ context.Context, r volume.Request) (volume.Mounted, error) {
	return volume.Mounted{Image: &runtimeapi.ImageSpec{Image: r.Source.Volume.Image.Reference}, ReadOnly: true}, nil
}

// Teardown implements volume.Driver: the mount went with the container.
func (*Driver) Teardown(context.Context, string, string, string) error { return nil }
