// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Push brings an image to the registry that its name says. Layers that are
// there already are not transferred.
func (s *Store) Push(ctx context.Context, image string, auth Auth) error {
	ref, err := parseReference(image)
	if err != nil {
		return fmt.Errorf("failed to parse image reference %q: %w", image, err)
	}
	if ref.tag == "" {
		return fmt.Errorf("%q is not a tag", image)
	}
	img, err := s.Get(ref.byTag())
	if err != nil {
		return err
	}
	defer s.hold(append(append([]string{img.ID, img.Manifest}, img.Blobs...), img.DiffIDs...)...)()
	from, err := s.stored(img)
	if err != nil {
		return err
	}
	places, err := s.hosts.sources(ref.registry(), "push")
	if err != nil {
		return err
	}
	if len(places) == 0 {
		return fmt.Errorf("no host of the registry %s takes images", ref.registry())
	}
	place := places[len(places)-1] // the registry itself, after its mirrors
	target, err := ref.at(place)
	if err != nil {
		return err
	}
	tag, ok := target.(name.Tag)
	if !ok {
		return errors.New("only a tag can be pushed")
	}
	if err := remote.Write(tag, from, remote.WithContext(ctx), remote.WithTransport(place.transport),
		remote.WithAuth(s.authenticator(auth, tag)), remote.WithUserAgent("kaji")); err != nil {
		return fmt.Errorf("failed to push image %q: %w", ref, err)
	}
	return nil
}
