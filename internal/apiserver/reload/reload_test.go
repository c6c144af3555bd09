// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Changes are applied once; what cannot be is tried again after a minute, or at
// the next change.
func TestFollower(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	synctest.Test(t, func(t *testing.T) {
		var applied []string
		broken := true
		f := &Follower{Path: path, Metrics: NewMetrics("test", "test", "server"), Logger: slog.New(slog.DiscardHandler),
			Apply: func(_ context.Context, data []byte) error {
				applied = append(applied, string(data))
				if broken && strings.HasPrefix(string(data), "bad") {
					return errors.New("bad")
				}
				return nil
			}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Run(ctx, []byte("one")) }()
		expect := func(after time.Duration, want string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := strings.Join(applied, " "); got != want {
				t.Errorf("applied %q, want %q", got, want)
			}
		}
		expect(10*time.Second, "")
		write("two")
		expect(10*time.Second, "two")
		write("")
		expect(10*time.Second, "two")
		write("bad")
		expect(30*time.Second, "two bad")
		broken = false
		expect(40*time.Second, "two bad bad")
		expect(5*time.Minute, "two bad bad")
		write("three")
		expect(10*time.Second, "two bad bad three")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
