// SPDX-License-Identifier: Apache-2.0

package progress

import (
	"strings"
	"testing"

	"kaji/internal/container/image"
)

// TestPull shows a pull of two layers on a terminal and elsewhere.
func TestPull(t *testing.T) {
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	events := []image.LayerProgress{
		{Digest: a, State: image.LayerWaiting, Total: 3e6, Layers: 2},
		{Digest: b, State: image.LayerPresent, Done: 1e6, Total: 1e6, Layers: 2},
		{Digest: a, State: image.LayerPulling, Done: 1e6, Total: 3e6, Layers: 2},
		{Digest: a, State: image.LayerPulled, Done: 3e6, Total: 3e6, Layers: 2},
	}
	show := func(live bool) string {
		var out strings.Builder
		p := NewPull(&out, "example.com/x:v1")
		p.live = live
		for _, e := range events {
			p.Layer(e)
		}
		p.Close()
		return out.String()
	}
	if got, want := show(false), "bbbbbbbbbbbb: already here\naaaaaaaaaaaa: pulled 3.0 MB\n"; got != want {
		t.Errorf("without a terminal: %q, want %q", got, want)
	}
	steps := strings.Split(show(true), "\r\033[K")
	want := []string{
		"", " example.com/x:v1 [" + strings.Repeat(" ", 28) + "] 0.0 MB/3.0 MB, 0 of 2 layers",
		" example.com/x:v1 [" + strings.Repeat("=", 7) + strings.Repeat(" ", 21) + "] 1.0 MB/4.0 MB, 1 of 2 layers",
		" example.com/x:v1 [" + strings.Repeat("=", 14) + strings.Repeat(" ", 14) + "] 2.0 MB/4.0 MB, 1 of 2 layers",
		" example.com/x:v1 [" + strings.Repeat("=", 28) + "] 4.0 MB/4.0 MB, 2 of 2 layers", "",
	}
	if got, want := strings.Join(steps, "\n"), strings.Join(want, "\n"); got != want {
		t.Errorf("on a terminal:\n%s\nwant:\n%s", got, want)
	}
}
