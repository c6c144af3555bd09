// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"kaji/internal/container/layer"
)

// Names of an image in an archive's index, of containerd and of the OCI.
const (
	annotationName = "io.containerd.image.name"
	annotationRef  = "org.opencontainers.image.ref.name"
)

// Import reads an archive of `docker save` or of the OCI layout, plain or
// compressed, and stores its images for this platform.
func (s *Store) Import(ctx context.Context, r io.Reader) ([]*Image, error) {
	tmp, err := os.MkdirTemp(filepath.Join(s.cfg.Root, "tmp"), "import-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	plain, err := layer.Decompress(r)
	if err != nil {
		return nil, fmt.Errorf("reading the archive: %w", err)
	}
	defer plain.Close()
	file := filepath.Join(tmp, "archive.tar")
	if err := copyToFile(file, plain); err != nil {
		return nil, fmt.Errorf("reading the archive: %w", err)
	}
	isLayout, isDocker, err := kindOf(file)
	if err != nil {
		return nil, fmt.Errorf("reading the archive: %w", err)
	}
	switch {
	case isLayout:
		dir := filepath.Join(tmp, "layout")
		if err := extractLayout(file, dir); err != nil {
			return nil, fmt.Errorf("reading the archive: %w", err)
		}
		return s.importLayout(ctx, dir)
	case isDocker:
		return s.importDocker(ctx, file)
	}
	return nil, errors.New("the archive is neither an OCI layout nor one of docker save")
}

func copyToFile(path string, r io.Reader) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

func kindOf(file string) (isLayout, isDocker bool, err error) {
	f, err := os.Open(file)
	if err != nil {
		return false, false, err
	}
	defer f.Close()
	for in := tar.NewReader(f); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return isLayout, isDocker, nil
		}
		if err != nil {
			return false, false, err
		}
		switch path.Clean(h.Name) {
		case "index.json":
			isLayout = true
		case "manifest.json":
			isDocker = true
		}
	}
}

// extractLayout writes the plain files of an OCI layout, and nothing else.
func extractLayout(file, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for in := tar.NewReader(f); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		if h.Typeflag != tar.TypeReg || !(name == "index.json" || name == "oci-layout" || strings.HasPrefix(name, "blobs/")) {
			continue
		}
		if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
			return err
		}
		out, err := root.Create(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		if err = errors.Join(err, out.Close()); err != nil {
			return err
		}
	}
}

func (s *Store) importLayout(ctx context.Context, dir string) ([]*Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var images []*Image
	for _, desc := range manifest.Manifests {
		from, err := platformImage(index, desc, 0)
		if err != nil {
			return images, err
		}
		if from == nil {
			continue // for other platforms
		}
		var tags []string
		for _, key := range []string{annotationName, annotationRef} {
			if ref, err := parseReference(desc.Annotations[key]); err == nil && ref.tag != "" {
				// A bare "latest" is a tag without a repository: no name.
				if key == annotationName || strings.ContainsAny(desc.Annotations[key], "/:") {
					tags = []string{ref.byTag()}
					break
				}
			}
		}
		var digests []string
		for _, tag := range tags {
			ref, err := parseReference(tag)
			if err == nil {
				digests = append(digests, ref.byDigest(desc.Digest.String()))
			}
		}
		img, err := s.add(ctx, from, tags, digests, nil)
		if err != nil {
			return images, err
		}
		images = append(images, img)
	}
	if len(images) == 0 {
		return nil, fmt.Errorf("the archive has no image for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	return images, nil
}

// platformImage finds the image of this platform below a descriptor, or nil.
func platformImage(index v1.ImageIndex, desc v1.Descriptor, depth int) (v1.Image, error) {
	here := v1.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
	switch {
	case depth > 4:
		return nil, errors.New("the index is nested too deeply")
	case desc.MediaType.IsImage():
		if desc.Platform != nil && !desc.Platform.Satisfies(here) {
			return nil, nil
		}
		return index.Image(desc.Digest)
	case desc.MediaType.IsIndex():
		child, err := index.ImageIndex(desc.Digest)
		if err != nil {
			return nil, err
		}
		manifest, err := child.IndexManifest()
		if err != nil {
			return nil, err
		}
		for _, d := range manifest.Manifests {
			if img, err := platformImage(child, d, depth+1); img != nil || err != nil {
				return img, err
			}
		}
	}
	return nil, nil
}

func (s *Store) importDocker(ctx context.Context, file string) ([]*Image, error) {
	opener := func() (io.ReadCloser, error) { return os.Open(file) }
	manifest, err := tarball.LoadManifest(opener)
	if err != nil {
		return nil, err
	}
	var images []*Image
	for _, desc := range manifest {
		var tag *name.Tag
		if len(desc.RepoTags) > 0 {
			t, err := name.NewTag(desc.RepoTags[0])
			if err != nil {
				return images, err
			}
			tag = &t
		} else if len(manifest) > 1 {
			return images, errors.New("the archive has several images, one of them without a name")
		}
		from, err := tarball.Image(opener, tag)
		if err != nil {
			return images, err
		}
		var tags []string
		for _, t := range desc.RepoTags {
			ref, err := parseReference(t)
			if err != nil {
				return images, err
			}
			tags = append(tags, ref.byTag())
		}
		img, err := s.add(ctx, from, tags, nil, nil)
		if err != nil {
			return images, err
		}
		images = append(images, img)
	}
	return images, nil
}

// Format is that of an archive.
type Format string

// The formats of archives.
const (
	FormatDocker Format = "docker"
	FormatOCI    Format = "oci"
)

// Export writes images, by names, as one archive.
func (s *Store) Export(ctx context.Context, w io.Writer, format Format, names ...string) error {
	tagged := map[name.Reference]v1.Image{}
	index := make([]exported, 0, len(names))
	for _, n := range names {
		img, err := s.Get(n)
		if err != nil {
			return err
		}
		stored, err := s.stored(img)
		if err != nil {
			return err
		}
		tags := img.RepoTags
		if ref, err := parseReference(n); err == nil && ref.tag != "" && !strings.HasPrefix(img.ID, "sha256:"+n) {
			tags = []string{ref.byTag()}
		}
		for _, tag := range tags {
			t, err := name.NewTag(tag)
			if err != nil {
				return err
			}
			tagged[t] = stored
		}
		if len(tags) == 0 {
			d, err := name.NewDigest("local/image@" + img.Manifest)
			if err != nil {
				return err
			}
			tagged[d] = stored
		}
		index = append(index, exported{stored, tags})
	}
	switch format {
	case FormatDocker:
		return tarball.MultiRefWrite(tagged, w)
	case FormatOCI:
		return s.exportLayout(ctx, w, index)
	}
	return fmt.Errorf("unknown archive format %q", format)
}

type exported struct {
	img  v1.Image
	tags []string
}

func (s *Store) exportLayout(ctx context.Context, w io.Writer, images []exported) error {
	dir, err := os.MkdirTemp(filepath.Join(s.cfg.Root, "tmp"), "export-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	empty, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), empty, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600); err != nil {
		return err
	}
	for _, e := range images {
		annotations := map[string]string{}
		if len(e.tags) > 0 {
			annotations[annotationName], annotations[annotationRef] = e.tags[0], e.tags[0]
		}
		if err := layout.Path(dir).AppendImage(e.img, layout.WithAnnotations(annotations)); err != nil {
			return err
		}
	}
	out := tar.NewWriter(w)
	if err := out.AddFS(os.DirFS(dir)); err != nil {
		return err
	}
	return errors.Join(ctx.Err(), out.Close())
}

// stored reads an image back from the store.
func (s *Store) stored(img *Image) (v1.Image, error) {
	return partial.CompressedToImage(&storedImage{s, img})
}

type storedImage struct {
	s   *Store
	img *Image
}

func (i *storedImage) RawManifest() ([]byte, error)   { return os.ReadFile(i.s.blobPath(i.img.Manifest)) }
func (i *storedImage) RawConfigFile() ([]byte, error) { return os.ReadFile(i.s.blobPath(i.img.ID)) }

func (i *storedImage) MediaType() (types.MediaType, error) {
	raw, err := i.RawManifest()
	if err != nil {
		return "", err
	}
	var m struct{ MediaType types.MediaType }
	if err := json.Unmarshal(raw, &m); err != nil {
		return "", err
	}
	if m.MediaType == "" {
		m.MediaType = types.OCIManifestSchema1
	}
	return m.MediaType, nil
}

func (i *storedImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	manifest, err := partial.Manifest(i)
	if err != nil {
		return nil, err
	}
	for _, desc := range append([]v1.Descriptor{manifest.Config}, manifest.Layers...) {
		if desc.Digest == h {
			return &storedLayer{i.s, desc}, nil
		}
	}
	return nil, fmt.Errorf("image has no layer %s", h)
}

type storedLayer struct {
	s    *Store
	desc v1.Descriptor
}

func (l *storedLayer) Digest() (v1.Hash, error)            { return l.desc.Digest, nil }
func (l *storedLayer) Size() (int64, error)                { return l.desc.Size, nil }
func (l *storedLayer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }
func (l *storedLayer) Compressed() (io.ReadCloser, error) {
	return os.Open(l.s.blobPath(l.desc.Digest.String()))
}
