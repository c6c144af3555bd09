// SPDX-License-Identifier: Apache-2.0

// Package packed runs executables that are embedded compressed, as tools/pack
// writes them. Each is unpacked once per build to a cache that only the user can
// write, or to memory where there is no such place.
//
// The kubectl verb and the front (cmd/front) call it. It never runs what another
// user could have written.
package packed

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// Program is an embedded executable. Name is what processes are called; Data
// opens what tools/pack wrote. It is read in pieces: only the pages of the
// embedding program that are looked at are loaded.
type Program struct {
	Name string
	Data func() (fs.File, error)
}

// magic begins the frame before the compressed data, which decoders skip: its
// length, the executable's size, SHA-256 sum and build identity.
const (
	magic   = 0x184D2A50
	fixed   = 8 + sha256.Size // of the frame's contents
	longest = 1 << 12
)

// Pack compresses the executable in a file.
func Pack(path string) ([]byte, error) {
	executable, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return nil, err
	}
	sum, id := sha256.Sum256(executable), identity(path)
	out := binary.LittleEndian.AppendUint32(nil, magic)
	out = binary.LittleEndian.AppendUint32(out, uint32(fixed+len(id)))
	out = binary.LittleEndian.AppendUint64(out, uint64(len(executable)))
	out = append(append(out, sum[:]...), id...)
	return w.EncodeAll(executable, out), nil
}

// description is what the frame says.
type description struct {
	size          int64
	sum, identity string
}

func (p Program) describe() (description, error) {
	none := fmt.Errorf("%s: not packed by tools/pack", p.Name)
	data, err := p.Data()
	if err != nil {
		return description{}, err
	}
	defer data.Close()
	var head [8]byte
	if _, err := io.ReadFull(data, head[:]); err != nil || binary.LittleEndian.Uint32(head[:]) != magic {
		return description{}, none
	}
	n := binary.LittleEndian.Uint32(head[4:])
	if n < fixed || n > longest {
		return description{}, none
	}
	frame := make([]byte, n)
	if _, err := io.ReadFull(data, frame); err != nil {
		return description{}, none
	}
	return description{int64(binary.LittleEndian.Uint64(frame)), hex.EncodeToString(frame[8 : 8+8]), string(frame[fixed:])}, nil
}

// Exec replaces the process with the program. It returns only on failure.
func (p Program) Exec(args, env []string) error {
	path, err := p.Path()
	if err == nil {
		err = syscall.Exec(path, args, env)
	}
	// No cache, or one on a file system that runs nothing.
	file, memory := p.inMemory()
	if memory == nil {
		memory = syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", file.Fd()), args, env)
		file.Close()
	}
	return errors.Join(err, memory)
}

// Path returns where the program is unpacked, unpacking it if needed.
func (p Program) Path() (string, error) {
	what, err := p.describe()
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, p.Name+"-"+what.sum, p.Name)
	// A crash of the machine can leave the name without the data.
	if info, err := os.Stat(path); err == nil && info.Size() == what.size {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	if err := p.unpackTo(path); err != nil {
		return "", fmt.Errorf("unpacking %s: %w", p.Name, err)
	}
	p.sweep(cache, filepath.Dir(path))
	return path, nil
}

// cachePath is the user's cache. Root's is the machine's, so that it does not
// depend on whose home directory sudo left.
func cachePath() (string, error) {
	base := os.Getenv("XDG_CACHE_HOME")
	if filepath.IsAbs(base) {
		return filepath.Join(base, "kaji"), nil
	}
	if os.Geteuid() == 0 {
		return "/var/cache/kaji", nil
	}
	home := os.Getenv("HOME")
	if home == "" {
		return "", errors.New("no cache directory: neither XDG_CACHE_HOME nor HOME is set")
	}
	return filepath.Join(home, ".cache", "kaji"), nil
}

// cacheDir makes the cache, or refuses one in which somebody else could have put
// a program for this user to run.
func cacheDir() (string, error) {
	dir, err := cachePath()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return "", fmt.Errorf("%s is not a directory that only its user can write", dir)
	}
	return dir, nil
}

// RemoveCache deletes everything that was unpacked; it comes again when it is
// needed. Programs that run go on.
func RemoveCache() error {
	dir, err := cachePath()
	if err != nil {
		return nil // then nothing was unpacked
	}
	return os.RemoveAll(dir)
}

func (p Program) unpackTo(path string) error {
	out, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	if err := errors.Join(p.unpack(out), out.Chmod(0o755), out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), path)
}

func (p Program) unpack(out io.Writer) error {
	data, err := p.Data()
	if err != nil {
		return err
	}
	defer data.Close()
	r, err := zstd.NewReader(data)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(out, r)
	return err
}

// inMemory returns the program as a file without a name.
func (p Program) inMemory() (*os.File, error) {
	fd, err := unix.MemfdCreate(p.Name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("unpacking %s to memory: %w", p.Name, err)
	}
	out := os.NewFile(uintptr(fd), p.Name)
	if err := p.unpack(out); err != nil {
		return nil, errors.Join(fmt.Errorf("unpacking %s to memory: %w", p.Name, err), out.Close())
	}
	return out, nil
}

// keep is how long the program of another build stays: it may still be in use.
const keep = 7 * 24 * time.Hour

// sweep removes what earlier builds unpacked.
func (p Program) sweep(cache, own string) {
	all, _ := filepath.Glob(filepath.Join(cache, p.Name+"-*"))
	for _, dir := range all {
		if info, err := os.Stat(dir); err == nil && dir != own && time.Since(info.ModTime()) > keep {
			os.RemoveAll(dir)
		}
	}
}

// Matches says whether the file path, beside the program that holds p, is what
// was packed, which saves unpacking it. Whoever can write there could change that
// program as well, so that the build's identity is proof enough.
func (p Program) Matches(path string) bool {
	what, err := p.describe()
	if err != nil || what.identity == "" {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Size() == what.size && identity(path) == what.identity
}

// identity is the build identity that the Go linker left in an executable; empty
// when there is none.
func identity(path string) string {
	f, err := elf.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	section := f.Section(".note.go.buildid")
	if section == nil {
		return ""
	}
	note, err := section.Data()
	if err != nil || len(note) < 16 {
		return ""
	}
	return string(note[16:])
}
