// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"net/http"
	"sync"
	"unicode/utf8"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/warning"
)

// Limits of the warnings of one answer, in characters: above the first, each
// is cut to the second, and no more are sent when even those are too many.
const (
	maxWarnings = 4 << 10
	maxWarning  = 256
)

// warnings writes warnings as headers of one answer, each text once.
type warnings struct {
	header http.Header

	mu      sync.Mutex
	texts   []string
	written int
	cutting bool
}

// AddWarning implements warning.Recorder.
func (w *warnings) AddWarning(_, text string) {
	if text == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cutting && w.written >= maxWarnings {
		return
	}
	for _, seen := range w.texts {
		if seen == text {
			return
		}
	}
	w.texts = append(w.texts, text)
	if !w.cutting && w.written+utf8.RuneCountInString(text) > maxWarnings {
		w.cutting = true
		w.written = 0
		w.header.Del("Warning")
		for _, earlier := range w.texts {
			w.send(earlier)
		}
		return
	}
	w.send(text)
}

func (w *warnings) send(text string) {
	if runes := []rune(text); w.cutting && len(runes) > maxWarning {
		text = string(runes[:maxWarning])
	}
	header, err := utilnet.NewWarningHeader(299, "", text)
	if err != nil {
		return
	}
	w.written += utf8.RuneCountInString(text)
	w.header.Add("Warning", header)
}

// withWarnings lets everything behind it send warnings.
func withWarnings(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := warning.WithWarningRecorder(r.Context(), &warnings{header: w.Header()})
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}
