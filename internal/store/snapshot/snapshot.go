// SPDX-License-Identifier: Apache-2.0

// Package snapshot saves a store to one file while it is in use, checks such a
// file, and restores it into an empty data directory. The commands
// kaji store snapshot, check and restore call it.
//
// A snapshot holds every key as it stood at one revision, from any engine, and
// no history. The file is
//
//	"KAJISNP1" revision(8)
//	for each key, ascending: 1 create mod version ttl key value
//	0 keys(8) SHA-256 of all before (32)
//
// with fixed numbers big-endian, others as unsigned varints, and key and value
// preceded by their length.
package snapshot

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"

	"kaji/internal/store"
	"kaji/internal/store/pebble"
	"kaji/internal/vfs"
)

// Info describes a snapshot.
type Info struct {
	// Revision is the store's at which it was taken.
	Revision int64
	Keys     int64
	// Bytes is the file's size.
	Bytes int64
	// SHA256 is its checksum in hexadecimal, without the last 32 bytes,
	// which hold it.
	SHA256 string
}

const (
	magic     = "KAJISNP1"
	markerKey = 1
	markerEnd = 0
	// pageKeys is how many keys are read at once.
	pageKeys = 200
	// limitKey and limitValue bound what a damaged length can ask for.
	limitKey   = 1 << 20
	limitValue = 1 << 30
)

// ErrDamaged says that a file is not a whole snapshot.
var ErrDamaged = errors.New("not a whole snapshot")

// Save writes what s holds now to the file name, which appears when it is
// complete. Writers of s are not held up. fs nil means the operating system's
// files.
func Save(ctx context.Context, s store.Store, fs vfs.FS, name string) (Info, error) {
	var info Info
	err := vfs.WriteFile(orOS(fs), name, func(w io.Writer) (err error) {
		info, err = Write(ctx, s, w)
		return err
	})
	if err != nil {
		return Info{}, fmt.Errorf("snapshot: save %s: %w", name, err)
	}
	return info, nil
}

func orOS(fs vfs.FS) vfs.FS {
	if fs == nil {
		return vfs.OS()
	}
	return fs
}

// Write writes a snapshot to w.
func Write(ctx context.Context, s store.Store, w io.Writer) (Info, error) {
	revision, err := s.Revision(ctx)
	if err != nil {
		return Info{}, err
	}
	out := &writer{sum: sha256.New(), out: bufio.NewWriterSize(w, 64<<10)}
	out.write(binary.BigEndian.AppendUint64([]byte(magic), uint64(revision)))
	info := Info{Revision: revision}
	for start := ""; out.err == nil; {
		page, err := s.Range(ctx, store.Range{Start: start, Limit: pageKeys, Revision: revision})
		if err != nil {
			return Info{}, err
		}
		for i := range page.KVs {
			out.write(appendKey(nil, &page.KVs[i]))
			out.write(page.KVs[i].Value)
		}
		info.Keys += int64(len(page.KVs))
		if !page.More() {
			break
		}
		start = page.KVs[len(page.KVs)-1].Key + "\x00"
	}
	out.write(binary.BigEndian.AppendUint64([]byte{markerEnd}, uint64(info.Keys)))
	sum := out.sum.Sum(nil)
	out.write(sum)
	if out.err == nil {
		out.err = out.out.Flush()
	}
	info.Bytes, info.SHA256 = out.n, hex.EncodeToString(sum)
	return info, out.err
}

// appendKey encodes all of a key but its value's bytes.
func appendKey(b []byte, kv *store.KeyValue) []byte {
	b = append(b, markerKey)
	for _, n := range []int64{kv.CreateRevision, kv.ModRevision, kv.Version, kv.TTL, int64(len(kv.Key))} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = append(b, kv.Key...)
	return binary.AppendUvarint(b, uint64(len(kv.Value)))
}

// writer hashes and counts what passes; its first error stays.
type writer struct {
	out *bufio.Writer
	sum hash.Hash
	n   int64
	err error
}

func (w *writer) write(b []byte) {
	if w.err != nil {
		return
	}
	w.sum.Write(b)
	n, err := w.out.Write(b)
	w.n += int64(n)
	w.err = err
}

// Check reads the whole file and verifies it.
func Check(ctx context.Context, fs vfs.FS, name string) (Info, error) {
	f, err := orOS(fs).Open(name)
	if err != nil {
		return Info{}, fmt.Errorf("snapshot: %w", err)
	}
	defer f.Close()
	r := newReader(f)
	for _, err := range r.keys(ctx) {
		if err != nil {
			return Info{}, fmt.Errorf("snapshot: %s: %w", name, err)
		}
	}
	return r.info, nil
}

// Restore checks the file and makes a store of it in cfg.Dir, which must be
// empty or absent and appears complete or not at all. The store's revision is
// the snapshot's plus bump: with a bump beyond all that was written after the
// snapshot, clients that remember those revisions notice that they must read
// everything again.
func Restore(ctx context.Context, fs vfs.FS, name string, cfg pebble.Config, bump int64) (Info, error) {
	info, err := Check(ctx, fs, name)
	if err != nil {
		return Info{}, err
	}
	f, err := orOS(fs).Open(name)
	if err != nil {
		return Info{}, fmt.Errorf("snapshot: %w", err)
	}
	defer f.Close()
	if err := restore(ctx, newReader(f), cfg, info.Revision+bump); err != nil {
		return Info{}, fmt.Errorf("snapshot: restore %s: %w", name, err)
	}
	return info, nil
}

func restore(ctx context.Context, r *reader, cfg pebble.Config, revision int64) error {
	disk, dir := orOS(cfg.FS), cfg.Dir
	if names, err := disk.List(dir); err == nil && len(names) > 0 {
		return fmt.Errorf("%s is not empty", dir)
	}
	cfg.Dir = dir + ".restoring"
	if err := disk.RemoveAll(cfg.Dir); err != nil {
		return err
	}
	if err := pebble.Import(cfg, revision, r.keys(ctx)); err != nil {
		return errors.Join(err, disk.RemoveAll(cfg.Dir))
	}
	if _, err := disk.Stat(dir); err == nil {
		if err := disk.Remove(dir); err != nil {
			return err
		}
	}
	return disk.Rename(cfg.Dir, dir)
}

// reader decodes a snapshot; info is complete when keys has ended well.
type reader struct {
	in   *bufio.Reader
	sum  hash.Hash
	info Info
}

func newReader(in io.Reader) *reader {
	return &reader{in: bufio.NewReaderSize(in, 64<<10), sum: sha256.New()}
}

// keys yields every key, and then an error unless the file was whole. Values are
// yielded before the checksum is known; Check first.
func (r *reader) keys(ctx context.Context) iter.Seq2[store.KeyValue, error] {
	return func(yield func(store.KeyValue, error) bool) {
		head := r.bytes(uint64(len(magic) + 8))
		if head == nil || string(head[:len(magic)]) != magic {
			yield(store.KeyValue{}, ErrDamaged)
			return
		}
		r.info.Revision = int64(binary.BigEndian.Uint64(head[len(magic):]))
		for {
			kv, end, err := r.next()
			if err == nil {
				err = ctx.Err()
			}
			switch {
			case err != nil:
				yield(store.KeyValue{}, err)
				return
			case end:
				if err := r.finish(); err != nil {
					yield(store.KeyValue{}, err)
				}
				return
			}
			r.info.Keys++
			if !yield(kv, nil) {
				return
			}
		}
	}
}

func (r *reader) next() (kv store.KeyValue, end bool, err error) {
	switch marker := r.bytes(1); {
	case marker == nil:
		return kv, false, ErrDamaged
	case marker[0] == markerEnd:
		return kv, true, nil
	case marker[0] != markerKey:
		return kv, false, ErrDamaged
	}
	var key, value int64
	for _, n := range []*int64{&kv.CreateRevision, &kv.ModRevision, &kv.Version, &kv.TTL, &key} {
		if *n, err = r.number(); err != nil {
			return kv, false, err
		}
	}
	if key == 0 || key > limitKey {
		return kv, false, ErrDamaged
	}
	kv.Key = string(r.bytes(uint64(key)))
	if value, err = r.number(); err != nil {
		return kv, false, err
	}
	if value > limitValue {
		return kv, false, ErrDamaged
	}
	if kv.Value = r.bytes(uint64(value)); kv.Value == nil || kv.Key == "" {
		return kv, false, ErrDamaged
	}
	return kv, false, nil
}

// finish reads the trailer and compares the count and the checksum.
func (r *reader) finish() error {
	count := r.bytes(8)
	if count == nil || int64(binary.BigEndian.Uint64(count)) != r.info.Keys {
		return ErrDamaged
	}
	sum := r.sum.Sum(nil)
	stored := r.bytes(sha256.Size)
	if stored == nil || !bytes.Equal(stored, sum) {
		return fmt.Errorf("%w: its checksum differs", ErrDamaged)
	}
	if _, err := r.in.ReadByte(); err != io.EOF {
		return fmt.Errorf("%w: something follows its end", ErrDamaged)
	}
	r.info.SHA256 = hex.EncodeToString(sum)
	return nil
}

// bytes returns the next n bytes, or nil when there are fewer. Memory grows only
// with what is really there.
func (r *reader) bytes(n uint64) []byte {
	var b bytes.Buffer
	if n <= 64<<10 {
		b.Grow(int(n))
	}
	if copied, err := io.CopyN(&b, r.in, int64(n)); err != nil || uint64(copied) != n {
		return nil
	}
	out := b.Bytes()
	if out == nil {
		out = []byte{}
	}
	r.sum.Write(out)
	r.info.Bytes += int64(n)
	return out
}

func (r *reader) number() (int64, error) {
	u, err := binary.ReadUvarint(byteReader{r})
	if err != nil || u > 1<<62 {
		return 0, ErrDamaged
	}
	return int64(u), nil
}

// byteReader reads single bytes past the checksum.
type byteReader struct{ r *reader }

func (b byteReader) ReadByte() (byte, error) {
	c, err := b.r.in.ReadByte()
	if err == nil {
		b.r.sum.Write([]byte{c})
		b.r.info.Bytes++
	}
	return c, err
}
