// SPDX-License-Identifier: Apache-2.0

package image

import (
	"cmp"
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

// Bounds of what a Node object tells of images.
const (
	maxListed = 50
	maxNames  = 5
)

// List returns the images on the node as the Node object shows them, largest
// first. A runtime that does not answer has none.
func (s *Store) List(ctx context.Context) []corev1.ContainerImage {
	answer, err := s.cfg.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		s.cfg.Logger.Warn("images were not listed", "err", err)
		return nil
	}
	var listed []corev1.ContainerImage
	for _, i := range answer.Images {
		names := append(slices.Clone(i.RepoDigests), i.RepoTags...)
		if len(names) > maxNames {
			names = names[:maxNames]
		}
		if len(names) > 0 {
			listed = append(listed, corev1.ContainerImage{Names: names, SizeBytes: int64(i.Size)})
		}
	}
	slices.SortFunc(listed, func(a, b corev1.ContainerImage) int {
		return cmp.Or(cmp.Compare(b.SizeBytes, a.SizeBytes), cmp.Compare(a.Names[0], b.Names[0]))
	})
	if most := int(ptr.Deref(s.cfg.Listed, maxListed)); most >= 0 && len(listed) > most {
		listed = listed[:most]
	}
	return listed
}
