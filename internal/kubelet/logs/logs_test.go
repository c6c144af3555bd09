// SPDX-License-Identifier: Apache-2.0

package logs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/kubelet/logs"
)

const sample = `2026-01-01T00:00:00.000000001Z stdout F one
2026-01-01T00:00:01Z stderr F two
2026-01-01T00:00:02Z stdout P thr
2026-01-01T00:00:02Z stdout F ee
not a line of a runtime
2026-01-01T00:00:03Z stdout F four
`

// Each option cuts the log as kubectl logs documents it.
func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	one, six := int64(1), int64(6)
	stderr := corev1.LogStreamStderr
	for name, c := range map[string]struct {
		o    corev1.PodLogOptions
		want string
	}{
		"all":        {corev1.PodLogOptions{}, "one\ntwo\nthree\nfour\n"},
		"tail":       {corev1.PodLogOptions{TailLines: &one}, "four\n"},
		"limit":      {corev1.PodLogOptions{LimitBytes: &six}, "one\ntw"},
		"stream":     {corev1.PodLogOptions{Stream: &stderr}, "two\n"},
		"timestamps": {corev1.PodLogOptions{Stream: &stderr, Timestamps: true}, "2026-01-01T00:00:01Z two\n"},
		"since":      {corev1.PodLogOptions{SinceSeconds: &one}, "four\n"},
	} {
		var b bytes.Buffer
		now := time.Date(2026, 1, 1, 0, 0, 4, 0, time.UTC)
		if err := logs.Read(t.Context(), path, logs.From(&c.o, now), &b, &b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if b.String() != c.want {
			t.Errorf("%s: got %q, want %q", name, b.String(), c.want)
		}
	}
}

// Whatever a file holds, reading it neither fails nor panics.
func FuzzRead(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("2026-01-01T00:00:00Z stdout P"))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "0.log")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := logs.Tail(path, 3, 64); err != nil && len(content) < 1<<20 || len(b) > 64 {
			t.Errorf("got %d bytes, %v", len(b), err)
		}
	})
}
