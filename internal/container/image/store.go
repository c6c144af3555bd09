// SPDX-License-Identifier: Apache-2.0

// Package image keeps container images: it pulls them from registries, imports
// and exports archives, stores blobs and unpacked layers by digest, and gives
// containers their root file systems. Package container calls it. It knows no
// containers: the caller says which images are in use.
package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"kaji/internal/container/layer"
)

// ErrNotFound tells that no image has the name.
var ErrNotFound = errors.New("no such image")

// Config configures a Store.
type Config struct {
	// Root is the directory of the store, private to it.
	Root string
	// HostsDir holds a directory a registry with a hosts.toml, as containerd
	// reads them: mirrors and certificates. Empty for none.
	HostsDir string
	// DockerConfig is a docker client's config.json with credentials for
	// registries, used when a pull brings none. Empty for none.
	DockerConfig string
	// Pinned are references that garbage collection must leave alone.
	Pinned []string
	// Limits bound each layer; zero means layer.DefaultLimits.
	Limits layer.Limits
	// Stall is how long a registry may send nothing before the connection is
	// given up and the rest asked for again, a few times; zero means a minute.
	Stall  time.Duration
	Logger *slog.Logger
}

// Image is one image. It is immutable.
type Image struct {
	// ID is the digest of the configuration, "sha256:...".
	ID string `json:"id"`
	// RepoTags and RepoDigests are full references.
	RepoTags    []string `json:"repoTags,omitempty"`
	RepoDigests []string `json:"repoDigests,omitempty"`
	// Manifest is the digest of the platform's manifest.
	Manifest string `json:"manifest"`
	// DiffIDs are the layers, the lowest first.
	DiffIDs []string `json:"diffIDs"`
	// Blobs are the digests of the layers as they are transferred.
	Blobs []string `json:"blobs"`
	// Size is that of the transferred layers and the configuration, in bytes.
	Size   int64     `json:"size"`
	Pinned bool      `json:"pinned,omitempty"`
	Since  time.Time `json:"since"`

	// Config is what the image says about running it.
	Config *v1.ConfigFile `json:"-"`
}

// Store holds images. It is safe for concurrent use.
type Store struct {
	cfg    Config
	layers keyed // one writer a layer or blob
	hosts  *hosts
	// overlay mounts one; copying tells once that there is none.
	overlay func(lower []string, upper, work, target, empty string) error
	copying sync.Once

	mu     sync.RWMutex
	images map[string]*Image // by id
	names  map[string]string // full reference -> id
	// busy are the digests that a running pull or import needs.
	busy map[string]int
}

// Open opens or makes the store below cfg.Root and removes what an interrupted
// pull left.
func Open(cfg Config) (*Store, error) {
	if cfg.Stall == 0 {
		cfg.Stall = defaultStall
	}
	if cfg.Limits == (layer.Limits{}) {
		cfg.Limits = layer.DefaultLimits
	}
	s := &Store{cfg: cfg, overlay: mountOverlay, images: map[string]*Image{}, names: map[string]string{}, busy: map[string]int{}}
	s.hosts = &hosts{dir: cfg.HostsDir, stall: cfg.Stall}
	for _, dir := range []string{"blobs", "layers", "records", "tmp"} {
		if err := os.MkdirAll(filepath.Join(cfg.Root, dir), 0o700); err != nil {
			return nil, err
		}
	}
	// Container root file systems are stacked from here: others must pass.
	for _, dir := range []string{cfg.Root, filepath.Join(cfg.Root, "layers")} {
		if err := os.Chmod(dir, 0o711); err != nil {
			return nil, err
		}
	}
	left, err := os.ReadDir(filepath.Join(cfg.Root, "tmp"))
	if err != nil {
		return nil, err
	}
	for _, entry := range left {
		if err := os.RemoveAll(filepath.Join(cfg.Root, "tmp", entry.Name())); err != nil {
			return nil, err
		}
	}
	records, err := os.ReadDir(filepath.Join(cfg.Root, "records"))
	if err != nil {
		return nil, err
	}
	for _, entry := range records {
		if !strings.HasSuffix(entry.Name(), ".json") {
			continue
		}
		img, err := s.load(filepath.Join(cfg.Root, "records", entry.Name()))
		if err != nil {
			cfg.Logger.Warn("image record is unusable; the image must be pulled again", "record", entry.Name(), "err", err)
			_ = os.Remove(filepath.Join(cfg.Root, "records", entry.Name()))
			continue
		}
		s.index(img)
	}
	return s, nil
}

func (s *Store) load(path string) (*Image, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	img := new(Image)
	if err := json.Unmarshal(raw, img); err != nil {
		return nil, err
	}
	for _, id := range img.DiffIDs {
		if _, err := os.Stat(s.layerDir(id)); err != nil {
			return nil, err
		}
	}
	if raw, err = os.ReadFile(s.blobPath(img.ID)); err != nil {
		return nil, err
	}
	img.Config = new(v1.ConfigFile)
	return img, json.Unmarshal(raw, img.Config)
}

// index adds an image to the maps, taking its names from other images, whose
// records it returns for writing. The caller holds mu, or is alone.
func (s *Store) index(img *Image) (changed []*Image) {
	for _, ref := range slices.Concat(img.RepoTags, img.RepoDigests) {
		if id, ok := s.names[ref]; ok && id != img.ID {
			other := *s.images[id]
			other.RepoTags = without(other.RepoTags, ref)
			other.RepoDigests = without(other.RepoDigests, ref)
			s.images[id] = &other
			changed = append(changed, &other)
		}
		s.names[ref] = img.ID
	}
	img.Pinned = slices.ContainsFunc(img.RepoTags, func(ref string) bool { return slices.Contains(s.cfg.Pinned, ref) })
	s.images[img.ID] = img
	return changed
}

func without(list []string, item string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == item })
}

// put records an image, merged with what is known of it.
func (s *Store) put(img *Image) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.images[img.ID]; ok {
		img.RepoTags = union(old.RepoTags, img.RepoTags)
		img.RepoDigests = union(old.RepoDigests, img.RepoDigests)
	}
	for _, changed := range append(s.index(img), img) {
		if err := s.write(changed); err != nil {
			return err
		}
	}
	return nil
}

func union(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

func (s *Store) write(img *Image) error {
	raw, err := json.Marshal(img)
	if err != nil {
		return err
	}
	return writeFile(s.recordPath(img.ID), raw)
}

// writeFile replaces a file whole.
func writeFile(path string, raw []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func hexOf(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

func (s *Store) blobPath(digest string) string {
	return filepath.Join(s.cfg.Root, "blobs", hexOf(digest))
}
func (s *Store) layerDir(diffID string) string {
	return filepath.Join(s.cfg.Root, "layers", hexOf(diffID))
}
func (s *Store) recordPath(id string) string {
	return filepath.Join(s.cfg.Root, "records", hexOf(id)+".json")
}

// Get finds an image by id, with or without "sha256:", shortened to no less
// than 12 digits, or by reference.
func (s *Store) Get(name string) (*Image, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.get(name)
}

func (s *Store) get(name string) (*Image, error) {
	if img, ok := s.images[name]; ok {
		return img, nil
	}
	if img, ok := s.images["sha256:"+name]; ok {
		return img, nil
	}
	if ref, err := parseReference(name); err == nil {
		if id, ok := s.names[ref.String()]; ok {
			return s.images[id], nil
		}
	}
	if short := hexOf(name); len(short) >= 12 && strings.Trim(short, "0123456789abcdef") == "" {
		for id, img := range s.images {
			if strings.HasPrefix(hexOf(id), short) {
				return img, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrNotFound, name)
}

// List returns all images, ordered by id.
func (s *Store) List() []*Image {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]*Image, 0, len(s.images))
	for _, img := range s.images {
		list = append(list, img)
	}
	slices.SortFunc(list, func(a, b *Image) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// Remove removes an image with all its names, and what no other image needs.
// It succeeds when there is none.
func (s *Store) Remove(name string) error {
	s.mu.Lock()
	img, err := s.get(name)
	if err != nil {
		s.mu.Unlock()
		return nil
	}
	err = os.Remove(s.recordPath(img.ID))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = nil
		delete(s.images, img.ID)
		for _, ref := range slices.Concat(img.RepoTags, img.RepoDigests) {
			delete(s.names, ref)
		}
	}
	s.mu.Unlock()
	return errors.Join(err, s.sweep())
}

// Tag gives an image one more name, taking it from another if need be.
func (s *Store) Tag(name, as string) error {
	ref, err := parseReference(as)
	if err != nil {
		return err
	}
	if ref.tag == "" {
		return fmt.Errorf("%q is not a tag", as)
	}
	old, err := s.Get(name)
	if err != nil {
		return err
	}
	img := *old
	img.RepoTags = union(img.RepoTags, []string{ref.byTag()})
	return s.put(&img)
}

// sweep removes blobs and layers that no image and no running pull needs.
func (s *Store) sweep() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	needed := map[string]bool{}
	for digest := range s.busy {
		needed[hexOf(digest)] = true
	}
	for _, img := range s.images {
		needed[hexOf(img.ID)], needed[hexOf(img.Manifest)] = true, true
		for _, digest := range slices.Concat(img.Blobs, img.DiffIDs) {
			needed[hexOf(digest)] = true
		}
	}
	for _, kind := range []string{"blobs", "layers"} {
		entries, err := os.ReadDir(filepath.Join(s.cfg.Root, kind))
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if needed[entry.Name()] {
				continue
			}
			// Out of sight first: half a layer must never be found.
			gone := filepath.Join(s.cfg.Root, "tmp", kind+"-"+entry.Name())
			if err := os.Rename(filepath.Join(s.cfg.Root, kind, entry.Name()), gone); err != nil {
				return err
			}
			if err := os.RemoveAll(gone); err != nil {
				return err
			}
		}
	}
	return nil
}

// hold keeps digests from sweep until release is called.
func (s *Store) hold(digests ...string) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range digests {
		s.busy[d]++
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, d := range digests {
			if s.busy[d]--; s.busy[d] == 0 {
				delete(s.busy, d)
			}
		}
	}
}

// Usage is what all images take, by the records of their layers.
func (s *Store) Usage() (layer.Usage, error) {
	var sum layer.Usage
	seen := map[string]bool{}
	for _, img := range s.List() {
		for _, digest := range append(slices.Clone(img.Blobs), img.ID, img.Manifest) {
			if st, err := os.Stat(s.blobPath(digest)); err == nil && !seen[digest] {
				seen[digest] = true
				sum.Bytes += st.Size()
				sum.Inodes++
			}
		}
		for _, id := range img.DiffIDs {
			if seen[id] {
				continue
			}
			seen[id] = true
			used, err := readUsage(s.layerDir(id))
			if err != nil {
				return sum, err
			}
			sum.Bytes += used.Bytes
			sum.Inodes += used.Inodes
		}
	}
	return sum, nil
}

// Root is the directory of the store.
func (s *Store) Root() string { return s.cfg.Root }

func readUsage(dir string) (used layer.Usage, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, "usage.json"))
	if err != nil {
		return used, err
	}
	return used, json.Unmarshal(raw, &used)
}

// keyed is a set of locks by name.
type keyed struct {
	mu    sync.Mutex
	locks map[string]*keyedLock
}

type keyedLock struct {
	users int
	ch    chan struct{}
}

// lock waits for the name, or for the end of ctx.
func (k *keyed) lock(ctx context.Context, name string) (unlock func(), err error) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[string]*keyedLock{}
	}
	l := k.locks[name]
	if l == nil {
		l = &keyedLock{ch: make(chan struct{}, 1)}
		k.locks[name] = l
	}
	l.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.locks, name)
		}
	}
	select {
	case l.ch <- struct{}{}:
		return func() { <-l.ch; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// free returns the bytes left on the store's file system.
func (s *Store) free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.cfg.Root, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}
