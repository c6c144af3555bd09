// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestPullResumes breaks the connection of a layer again and again: every byte
// is sent once, and the image is whole.
func TestPullResumes(t *testing.T) {
	noise := make([]byte, 512<<10)
	_, _ = rand.Read(noise)
	for _, ranges := range []bool{true, false} {
		var broken, sent atomic.Int64
		host := serve(t, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
					h.ServeHTTP(w, r)
					return
				}
				whole := httptest.NewRecorder()
				plain := r.Clone(r.Context())
				plain.Header.Del("Range")
				h.ServeHTTP(whole, plain)
				if whole.Body.Len() < 64<<10 {
					h.ServeHTTP(w, plain)
					return
				}
				if !ranges {
					r = plain
				}
				left := int64(200 << 10)
				if broken.Add(1) > 2 {
					left = 1 << 30
				}
				http.ServeContent(&torn{ResponseWriter: w, left: left, sent: &sent}, r, "", time.Time{}, bytes.NewReader(whole.Body.Bytes()))
			})
		})
		push(t, host+"/x/y:v1", imageOf(t, layerOf(t, map[string]string{"f": hex.EncodeToString(noise)})))
		got, err := newStore(t).Pull(t.Context(), host+"/x/y:v1", Auth{})
		if err != nil {
			t.Fatalf("ranges %t: %v", ranges, err)
		}
		// Without ranges the layer comes anew each time; with them not a byte does.
		if again := sent.Load() > got.Size; again == ranges {
			t.Errorf("ranges %t: %d bytes were sent for an image of %d", ranges, sent.Load(), got.Size)
		}
		if broken.Load() != 3 {
			t.Errorf("ranges %t: the layer was asked for %d times, want 3", ranges, broken.Load())
		}
	}
}

// torn breaks the connection when so many bytes have been sent.
type torn struct {
	http.ResponseWriter
	left int64
	sent *atomic.Int64
}

func (w *torn) Write(p []byte) (int, error) {
	p = p[:min(int64(len(p)), w.left)]
	n, err := w.ResponseWriter.Write(p)
	w.sent.Add(int64(n))
	if w.left -= int64(n); w.left == 0 {
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}
