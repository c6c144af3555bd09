// SPDX-License-Identifier: Apache-2.0

package image

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Policy says when images are removed.
type Policy struct {
	// High and Low are percentages of the disk: above High images are removed
	// until it is at Low. A High of 100 never removes.
	High, Low int
	// MinAge spares images that came or were used a short while ago.
	MinAge time.Duration
	// MaxAge removes images that nothing used for so long; zero keeps them.
	MaxAge time.Duration
}

// Collect removes images by the policy. used are the images of containers, by
// reference or identity; free and capacity are the disk's. It returns the bytes
// that it freed, and an error where they are fewer than the policy wants.
func (s *Store) Collect(ctx context.Context, p Policy, used map[string]bool, free, capacity uint64) (uint64, error) {
	wanted := uint64(0)
	if capacity > 0 && p.High < 100 {
		if percent := 100 - int(free*100/capacity); percent >= p.High {
			target := capacity * uint64(100-p.Low) / 100
			wanted = target - min(target, free)
		}
	}
	return s.remove(ctx, p, used, wanted)
}

// RemoveUnused removes every image that nothing uses.
func (s *Store) RemoveUnused(ctx context.Context, used map[string]bool) (uint64, error) {
	freed, err := s.remove(ctx, Policy{}, used, 1<<62)
	if err != nil && freed > 0 {
		return freed, nil
	}
	return freed, err
}

type candidate struct {
	image    *runtimeapi.Image
	lastUsed time.Time
	seen     time.Time
}

func (s *Store) remove(ctx context.Context, p Policy, used map[string]bool, wanted uint64) (uint64, error) {
	candidates, err := s.candidates(ctx, used)
	if err != nil {
		return 0, err
	}
	now := time.Now()
	freed := uint64(0)
	var last error
	for _, c := range candidates {
		old := p.MaxAge > 0 && now.Sub(c.lastUsed) > p.MaxAge
		if (freed >= wanted || now.Sub(c.seen) < p.MinAge || now.Sub(c.lastUsed) < p.MinAge) && !old {
			continue
		}
		if _, err := s.cfg.Images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: c.image.Id}}); err != nil {
			last = err
			continue
		}
		s.cfg.Logger.Info("removed an unused image", "image", c.image.Id, "bytes", c.image.Size)
		freed += c.image.Size
		if s.cfg.Collected != nil {
			s.cfg.Collected(map[bool]string{true: "age", false: "space"}[old])
		}
	}
	if freed < wanted && wanted != 0 {
		return freed, fmt.Errorf("Failed to garbage collect required amount of images. Attempted to free %d bytes, but only found %d bytes eligible to free.", wanted, freed) //nolint:staticcheck // the text of the event
	}
	return freed, last
}

// candidates are images that nothing uses, the longest unused first.
func (s *Store) candidates(ctx context.Context, used map[string]bool) ([]candidate, error) {
	begun := time.Now()
	answer, err := s.cfg.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	present := map[string]bool{}
	var out []candidate
	for _, i := range answer.Images {
		present[i.Id] = true
		if s.mu.seen[i.Id].IsZero() {
			s.mu.seen[i.Id] = now
		}
		inUse := used[i.Id] || slices.ContainsFunc(append(slices.Clone(i.RepoTags), i.RepoDigests...), func(n string) bool { return used[n] })
		if inUse {
			s.mu.used[i.Id] = now
		}
		if inUse || i.Pinned {
			continue
		}
		last := s.mu.used[i.Id]
		if last.IsZero() {
			last = s.mu.seen[i.Id]
		}
		out = append(out, candidate{i, last, s.mu.seen[i.Id]})
	}
	for id := range s.mu.seen {
		if !present[id] {
			delete(s.mu.seen, id)
			delete(s.mu.used, id)
			delete(s.mu.users, id)
		}
	}
	if s.cfg.Records != nil {
		if err := s.cfg.Records.prune(present, begun); err != nil {
			s.cfg.Logger.Warn("records of images were not removed", "err", err)
		}
	}
	slices.SortFunc(out, func(a, b candidate) int { return cmp.Or(a.lastUsed.Compare(b.lastUsed), a.seen.Compare(b.seen)) })
	return out, nil
}
