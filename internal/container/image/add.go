// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"kaji/internal/container/layer"
)

const (
	// parallelLayers bounds how many layers of one image are fetched at once.
	parallelLayers = 3
	maxManifest    = 4 << 20
	maxConfig      = 8 << 20
	maxLayers      = 500 // overlayfs stacks no more
)

// add stores an image under the given names. Layers that are here already are
// not read. to hears how far they are, if it is not nil.
func (s *Store) add(ctx context.Context, from v1.Image, tags, digests []string, to *teller) (*Image, error) {
	img, manifest, rawConfig, rawManifest, err := describe(from)
	if err != nil {
		return nil, err
	}
	img.RepoTags, img.RepoDigests = tags, digests
	defer s.hold(append(append([]string{img.ID, img.Manifest}, img.Blobs...), img.DiffIDs...)...)()
	if to != nil {
		to.layers = len(manifest.Layers)
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelLayers)
	for i, desc := range manifest.Layers {
		group.Go(func() error { return s.addLayer(gctx, from, desc, img.DiffIDs[i], to) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := writeFile(s.blobPath(img.ID), rawConfig); err != nil {
		return nil, err
	}
	if err := writeFile(s.blobPath(img.Manifest), rawManifest); err != nil {
		return nil, err
	}
	return img, s.put(img)
}

// describe reads what an image says about itself and checks it; layers are not
// read.
func describe(from v1.Image) (img *Image, manifest *v1.Manifest, rawConfig, rawManifest []byte, err error) {
	rawManifest, err = from.RawManifest()
	if err != nil {
		return nil, nil, nil, nil, err
	}
	rawConfig, err = from.RawConfigFile()
	if err != nil {
		return nil, nil, nil, nil, err
	}
	if len(rawManifest) > maxManifest || len(rawConfig) > maxConfig {
		return nil, nil, nil, nil, errors.New("manifest or configuration of the image is too large")
	}
	manifest, err = v1.ParseManifest(bytes.NewReader(rawManifest))
	if err != nil {
		return nil, nil, nil, nil, fmt.Errorf("manifest of the image: %w", err)
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(rawConfig))
	if err != nil {
		return nil, nil, nil, nil, fmt.Errorf("configuration of the image: %w", err)
	}
	id := digestOf(rawConfig)
	if want := manifest.Config.Digest.String(); id != want {
		return nil, nil, nil, nil, fmt.Errorf("configuration of the image has digest %s, want %s", id, want)
	}
	if len(manifest.Layers) != len(config.RootFS.DiffIDs) || len(manifest.Layers) > maxLayers {
		return nil, nil, nil, nil, fmt.Errorf("image has %d layers, but %d in its configuration (at most %d)",
			len(manifest.Layers), len(config.RootFS.DiffIDs), maxLayers)
	}
	img = &Image{
		ID: id, Manifest: digestOf(rawManifest), Size: manifest.Config.Size, Since: time.Now(), Config: config,
	}
	for i, l := range manifest.Layers {
		if !l.MediaType.IsLayer() || !l.MediaType.IsDistributable() {
			return nil, nil, nil, nil, fmt.Errorf("layer %s has the unsupported media type %s", l.Digest, l.MediaType)
		}
		if l.Digest.Algorithm != "sha256" || config.RootFS.DiffIDs[i].Algorithm != "sha256" {
			return nil, nil, nil, nil, fmt.Errorf("layer %s: only sha256 is supported", l.Digest)
		}
		img.Blobs = append(img.Blobs, l.Digest.String())
		img.DiffIDs = append(img.DiffIDs, config.RootFS.DiffIDs[i].String())
		img.Size += l.Size
	}
	return img, manifest, rawConfig, rawManifest, nil
}

func digestOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// addLayer brings one layer: its blob and its unpacked directory, in one pass.
func (s *Store) addLayer(ctx context.Context, from v1.Image, desc v1.Descriptor, diffID string, to *teller) error {
	at := LayerProgress{Digest: desc.Digest.String(), State: LayerWaiting, Total: desc.Size}
	to.say(at)
	unlock, err := s.layers.lock(ctx, diffID)
	if err != nil {
		return err
	}
	defer unlock()
	blob := s.blobPath(desc.Digest.String())
	_, blobErr := os.Stat(blob)
	_, dirErr := os.Stat(s.layerDir(diffID))
	if blobErr == nil && dirErr == nil {
		at.State, at.Done = LayerPresent, desc.Size
		to.say(at)
		return nil
	}
	if free, err := s.free(); err == nil && free < desc.Size {
		return fmt.Errorf("layer %s of %d bytes: no space left on device", desc.Digest, desc.Size)
	}
	var in io.ReadCloser
	if blobErr == nil {
		in, err = os.Open(blob)
	} else {
		var l v1.Layer
		if l, err = from.LayerByDigest(desc.Digest); err == nil {
			in, err = l.Compressed()
		}
	}
	if err != nil {
		return fmt.Errorf("layer %s: %w", desc.Digest, err)
	}
	defer in.Close()
	tmp, err := os.MkdirTemp(filepath.Join(s.cfg.Root, "tmp"), "layer-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	stop := context.AfterFunc(ctx, func() { _ = in.Close() })
	defer stop()
	at.State = LayerPulling
	if err := s.unpack(&counted{in: in, to: to, at: at}, tmp, desc, diffID); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("layer %s: %w", desc.Digest, err)
	}
	if err := os.Rename(filepath.Join(tmp, "blob"), blob); err != nil {
		return err
	}
	if dirErr != nil { // else it has the same files, compressed in another way
		if err := os.Rename(filepath.Join(tmp, "layer"), s.layerDir(diffID)); err != nil {
			return err
		}
	}
	at.State, at.Done = LayerPulled, desc.Size
	to.say(at)
	return nil
}

// unpack reads a compressed layer into tmp/blob and tmp/layer/fs and checks
// both digests.
func (s *Store) unpack(in io.Reader, tmp string, desc v1.Descriptor, diffID string) error {
	blob, err := os.Create(filepath.Join(tmp, "blob"))
	if err != nil {
		return err
	}
	defer blob.Close()
	fs := filepath.Join(tmp, "layer", "fs")
	if err := os.MkdirAll(fs, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(tmp, "layer"), 0o711); err != nil {
		return err
	}
	packed, plain := sha256.New(), sha256.New()
	// No more than was announced, so that a lying registry fills no disk.
	compressed := io.TeeReader(io.LimitReader(in, desc.Size+1), io.MultiWriter(blob, packed))
	content, err := layer.Decompress(compressed)
	if err != nil {
		return err
	}
	defer content.Close()
	used, err := layer.Unpack(fs, io.TeeReader(content, plain), s.cfg.Limits)
	if err != nil {
		return err
	}
	// What follows the archive's end belongs to the digests.
	if _, err := io.Copy(plain, io.LimitReader(content, s.cfg.Limits.Bytes)); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, compressed); err != nil {
		return err
	}
	if got := hex.EncodeToString(packed.Sum(nil)); got != desc.Digest.Hex {
		return fmt.Errorf("digest is sha256:%s", got)
	}
	if got := "sha256:" + hex.EncodeToString(plain.Sum(nil)); got != diffID {
		return fmt.Errorf("unpacked digest is %s, want %s", got, diffID)
	}
	if err := errors.Join(blob.Sync(), blob.Close()); err != nil {
		return err
	}
	raw, err := json.Marshal(used)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(tmp, "layer", "usage.json"), raw, 0o600)
}
