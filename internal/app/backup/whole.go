// SPDX-License-Identifier: Apache-2.0

package backup

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"kaji/internal/app/home"
	"kaji/internal/store/snapshot"
)

// Whole describes the backup of a whole cluster: its store at one revision, its
// keys and certificates, and the flags it was started with. What lies in volumes,
// and files that flags name, are not part of it.
type Whole struct {
	Format  int       `json:"format"`
	Cluster string    `json:"cluster"`
	Version string    `json:"version"`
	Taken   time.Time `json:"taken"`
	Keys    int       `json:"keys"`
}

// The members of a backup, in their order; keys and certificates follow.
const (
	format         = 1
	memberAbout    = "about.json"
	memberStore    = "store.snapshot"
	memberSettings = "settings.json"
	memberPKI      = "pki/"
)

// smallMember bounds every member but the store.
const smallMember = 1 << 20

// SaveWhole writes the backup of the cluster in dir to file, which appears when
// it is complete. A running cluster is asked for its store, a stopped one's is
// read.
func SaveWhole(ctx context.Context, dir home.Dir, running bool, about Whole, file string, log *slog.Logger) (Whole, error) {
	work, err := os.MkdirTemp(filepath.Dir(file), ".kaji-backup-*")
	if err != nil {
		return about, err
	}
	defer os.RemoveAll(work)
	saved := filepath.Join(work, memberStore)
	var info snapshot.Info
	if running {
		info, err = Online(ctx, dir.AdminKubeconfig(), saved)
	} else {
		info, err = Offline(ctx, string(dir), saved, log)
	}
	if err != nil {
		return about, err
	}
	about.Format, about.Keys, about.Taken = format, int(info.Keys), time.Now().UTC().Truncate(time.Second)
	part := filepath.Join(work, "backup")
	if err := writeWhole(part, saved, dir, about); err != nil {
		return about, err
	}
	return about, os.Rename(part, file)
}

func writeWhole(part, saved string, dir home.Dir, about Whole) (err error) {
	out, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // it holds the cluster's keys
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	packed, err := zstd.NewWriter(out)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(packed)
	text, err := json.MarshalIndent(about, "", "  ")
	if err != nil {
		return err
	}
	if err := archive.WriteHeader(&tar.Header{Name: memberAbout, Mode: 0o600, Size: int64(len(text))}); err != nil {
		return err
	}
	if _, err := archive.Write(text); err != nil {
		return err
	}
	members := map[string]string{memberStore: saved, memberSettings: dir.Settings()}
	keys, err := os.ReadDir(dir.PKI())
	if err != nil {
		return err
	}
	for _, k := range keys {
		if k.Type().IsRegular() {
			members[memberPKI+k.Name()] = filepath.Join(dir.PKI(), k.Name())
		}
	}
	for name, path := range members {
		if err := addMember(archive, name, path); err != nil && !(name == memberSettings && errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	return errors.Join(archive.Close(), packed.Close(), out.Sync())
}

func addMember(archive *tar.Writer, name, path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: info.Size(), ModTime: info.ModTime()}); err != nil {
		return err
	}
	_, err = io.CopyN(archive, in, info.Size())
	return err
}

// RestoreWhole makes the data directory of a cluster from a backup. The directory
// must not exist or be empty; it appears when everything is in it.
func RestoreWhole(ctx context.Context, file string, dir home.Dir, log *slog.Logger) (Whole, error) {
	if entries, err := os.ReadDir(string(dir)); err == nil && len(entries) > 0 {
		return Whole{}, fmt.Errorf("%s is not empty: restore into another --data-dir, or remove what is there (`kaji down --purge` for a cluster)", dir)
	}
	if err := os.MkdirAll(filepath.Dir(string(dir)), 0o755); err != nil {
		return Whole{}, err
	}
	work, err := os.MkdirTemp(filepath.Dir(string(dir)), ".kaji-restore-*")
	if err != nil {
		return Whole{}, err
	}
	defer os.RemoveAll(work)
	about, err := unpack(file, work)
	if err != nil {
		return about, fmt.Errorf("%s: %w", file, err)
	}
	saved := filepath.Join(work, memberStore)
	if _, err := Restore(ctx, saved, work, log); err != nil {
		return about, err
	}
	if err := errors.Join(os.Remove(saved), os.Remove(filepath.Join(work, memberAbout)), os.Chmod(work, 0o755)); err != nil {
		return about, err
	}
	// An empty directory may stand in the way.
	if err := os.Remove(string(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return about, err
	}
	return about, os.Rename(work, string(dir))
}

// errNoBackup says that a file is something else.
var errNoBackup = errors.New("this is no backup that `kaji backup` made")

func unpack(file, work string) (about Whole, err error) {
	in, err := os.Open(file)
	if err != nil {
		return about, err
	}
	defer in.Close()
	packed, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return about, err
	}
	defer packed.Close()
	archive := tar.NewReader(packed)
	if err := os.Mkdir(filepath.Join(work, memberPKI), 0o700); err != nil {
		return about, err
	}
	seen := map[string]bool{}
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return about, errors.Join(errNoBackup, err)
		}
		if err := unpackMember(archive, header, work, &about); err != nil {
			return about, err
		}
		seen[header.Name] = true
	}
	if !seen[memberAbout] || !seen[memberStore] || !seen[memberPKI+"ca.key"] {
		return about, errNoBackup
	}
	return about, nil
}

func unpackMember(archive io.Reader, header *tar.Header, work string, about *Whole) error {
	name, key := header.Name, strings.TrimPrefix(header.Name, memberPKI)
	known := name == memberAbout || name == memberStore || name == memberSettings || key != name && key == filepath.Base(key) && filepath.IsLocal(key)
	if !known || header.Typeflag != tar.TypeReg || name != memberStore && header.Size > smallMember {
		return errNoBackup
	}
	mode := os.FileMode(0o600)
	if strings.HasSuffix(name, ".crt") {
		mode = 0o644
	}
	out, err := os.OpenFile(filepath.Join(work, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, archive)
	if err = errors.Join(err, out.Close()); err != nil || name != memberAbout {
		return err
	}
	data, err := os.ReadFile(out.Name())
	if err == nil {
		err = json.Unmarshal(data, about)
	}
	if err == nil && about.Format != format {
		err = fmt.Errorf("the backup has format %d and this kaji (which reads %d) cannot read it: use the version that made it, %s", about.Format, format, about.Version)
	}
	return err
}
