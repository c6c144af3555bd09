// SPDX-License-Identifier: Apache-2.0

// Package backup saves the store of a cluster, running or not, checks such a
// file, and restores it. The verbs kaji store snapshot, check and restore call
// it. A running server is asked for the snapshot over its API, by whoever may
// get the path; a stopped one's data directory is read.
package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"

	"k8s.io/client-go/rest"

	"kaji/internal/app/kubeconfig"
	"kaji/internal/store"
	"kaji/internal/store/pebble"
	"kaji/internal/store/snapshot"
	"kaji/internal/vfs"
)

// Path is where an API server gives its snapshot away.
const Path = "/debug/kaji/snapshot"

// Serve answers requests for Path with a snapshot of s. A client notices by the
// checksum when the answer is cut off.
func Serve(s store.Store, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			http.Error(w, "only GET is served", http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		if _, err := snapshot.Write(r.Context(), s, w); err != nil {
			log.Error("a snapshot was cut off", "err", err)
			panic(http.ErrAbortHandler) // the client must not take it for whole
		}
	})
}

// Online saves the snapshot of a running server to file, which appears when it
// is complete and has been checked.
func Online(ctx context.Context, config, file string) (snapshot.Info, error) {
	rc, err := kubeconfig.REST(config)
	if err != nil {
		return snapshot.Info{}, err
	}
	web, err := rest.HTTPClientFor(rc)
	if err != nil {
		return snapshot.Info{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, rc.Host+Path, nil)
	if err != nil {
		return snapshot.Info{}, err
	}
	answer, err := web.Do(request)
	if err != nil {
		return snapshot.Info{}, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 4<<10)) // it only adds to the message
		return snapshot.Info{}, fmt.Errorf("%s answers %s: %s", rc.Host, answer.Status, text)
	}
	part := file + ".part"
	if err := vfs.WriteFile(vfs.OS(), part, func(w io.Writer) error {
		_, err := io.Copy(w, answer.Body)
		return err
	}); err != nil {
		return snapshot.Info{}, fmt.Errorf("save %s: %w", part, err)
	}
	info, err := snapshot.Check(ctx, nil, part)
	if err != nil {
		return info, errors.Join(err, vfs.OS().Remove(part))
	}
	return info, vfs.OS().Rename(part, file)
}

// Offline saves the store below the data directory of a server that is not
// running.
func Offline(ctx context.Context, dataDir, file string, log *slog.Logger) (info snapshot.Info, err error) {
	dir := filepath.Join(dataDir, "store")
	if _, err := vfs.OS().Stat(dir); err != nil {
		return info, fmt.Errorf("there is no store in %s", dataDir)
	}
	s, err := pebble.Open(pebble.Config{Dir: dir, Logger: log})
	if err != nil {
		return info, fmt.Errorf("%w (a running server is asked with --kubeconfig)", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return snapshot.Save(ctx, s, nil, file)
}

// Check reads a whole snapshot and verifies its checksum.
func Check(ctx context.Context, file string) (snapshot.Info, error) {
	return snapshot.Check(ctx, nil, file)
}

// revisionsAhead is how far the revision of a restored store is put ahead, so
// that no client takes what it read from the lost part for known.
const revisionsAhead = 1_000_000

// Restore makes the store of a data directory that has none from a snapshot.
func Restore(ctx context.Context, file, dataDir string, log *slog.Logger) (snapshot.Info, error) {
	return snapshot.Restore(ctx, nil, file, pebble.Config{Dir: filepath.Join(dataDir, "store"), Logger: log}, revisionsAhead)
}
