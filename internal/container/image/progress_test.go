// SPDX-License-Identifier: Apache-2.0

package image

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestProgress hears of every layer of a pull: first that it is waited for, then
// bytes that only grow, at the end that it is here.
func TestProgress(t *testing.T) {
	noise := make([]byte, 256<<10)
	_, _ = rand.Read(noise)
	host := serve(t, plain)
	img := imageOf(t, layerOf(t, map[string]string{"a": hex.EncodeToString(noise)}), layerOf(t, map[string]string{"b": "b"}))
	push(t, host+"/x/y:v1", img)
	s := newStore(t)
	for _, end := range []LayerState{LayerPulled, LayerPresent} {
		heard := map[string][]LayerProgress{}
		if _, err := s.Pull(t.Context(), host+"/x/y:v1", Auth{}, func(p LayerProgress) { heard[p.Digest] = append(heard[p.Digest], p) }); err != nil {
			t.Fatal(err)
		}
		if len(heard) != 2 {
			t.Errorf("heard of %d layers, want 2", len(heard))
		}
		for digest, all := range heard {
			first, last := all[0], all[len(all)-1]
			if first.State != LayerWaiting || first.Done != 0 || last.State != end || last.Done != last.Total || last.Total == 0 || last.Layers != 2 {
				t.Errorf("%s: from %+v to %+v, want from waiting to %s", digest, first, last, end)
			}
			for i := 1; i < len(all); i++ {
				if all[i].Done < all[i-1].Done {
					t.Errorf("%s: %d bytes after %d", digest, all[i].Done, all[i-1].Done)
				}
			}
		}
	}
}

// TestStall pulls from registries that send nothing for longer than they may:
// before the answer, in a layer once, in a layer again and again. One that is
// merely slow is waited for.
func TestStall(t *testing.T) {
	noise := make([]byte, 512<<10)
	_, _ = rand.Read(noise)
	for _, c := range []struct {
		name string
		// hang says whether a request is left without what follows.
		hang  func(layers int64, manifest bool) bool
		slow  time.Duration // between parts of a layer
		stall time.Duration
		fail  bool
	}{
		{"a manifest never", func(_ int64, manifest bool) bool { return manifest }, 0, 100 * time.Millisecond, true},
		{"a layer once", func(n int64, manifest bool) bool { return !manifest && n == 1 }, 0, 2 * time.Second, false},
		{"a layer always", func(_ int64, manifest bool) bool { return !manifest }, 0, 100 * time.Millisecond, true},
		{"slow", func(int64, bool) bool { return false }, 150 * time.Millisecond, 2 * time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var layers atomic.Int64
			live := false
			host := serve(t, func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !live || r.Method != http.MethodGet || r.URL.Path == "/v2/" {
						h.ServeHTTP(w, r)
						return
					}
					manifest := strings.Contains(r.URL.Path, "/manifests/")
					var n int64
					if !manifest {
						n = layers.Add(1)
					}
					if !manifest || c.hang(n, manifest) {
						w = &stalling{ResponseWriter: w, until: r, hang: c.hang(n, manifest), slow: c.slow}
					}
					h.ServeHTTP(w, r)
				})
			})
			push(t, host+"/x/y:v1", imageOf(t, layerOf(t, map[string]string{"f": hex.EncodeToString(noise)})))
			live = true
			s := newStore(t, func(cfg *Config) { cfg.Stall = c.stall })
			_, err := s.Pull(t.Context(), host+"/x/y:v1", Auth{})
			if !c.fail {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if _, ok := errors.AsType[stalled](err); !ok || reason(err) != PullUnreachable {
				t.Errorf("Pull: %v, reason %d, want that nothing came", err, reason(err))
			}
		})
	}
}

// stalling sends some bytes and hangs then, until the client leaves, or sends
// slowly.
type stalling struct {
	http.ResponseWriter
	until *http.Request
	hang  bool
	slow  time.Duration
}

func (w *stalling) Write(p []byte) (int, error) {
	if w.hang {
		<-w.until.Context().Done()
		return 0, w.until.Context().Err()
	}
	sent := 0
	for part := range slices.Chunk(p, 32<<10) {
		if w.slow > 0 {
			_ = http.NewResponseController(w.ResponseWriter).Flush()
			<-time.After(w.slow)
		}
		n, err := w.ResponseWriter.Write(part)
		if sent += n; err != nil {
			return sent, err
		}
	}
	return sent, nil
}
