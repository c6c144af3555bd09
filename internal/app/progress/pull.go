// SPDX-License-Identifier: Apache-2.0

package progress

import (
	"fmt"
	"io"
	"strings"
	"time"

	"kaji/internal/container/image"
)

const (
	barWidth = 28
	// plainEvery is how often a pull that is not shown on a terminal says that
	// it goes on.
	plainEvery = 5 * time.Second
)

// Pull shows how far the pull of an image is: a bar on a terminal, elsewhere a
// line for each layer that has come, and now and then one for all. It is used by
// one goroutine.
type Pull struct {
	Display
	name   string
	order  []string
	layers map[string]image.LayerProgress
	said   time.Time
}

// NewPull returns the display of a pull of the image name on w.
func NewPull(w io.Writer, name string) *Pull {
	return &Pull{Display: *New(w), name: name, layers: map[string]image.LayerProgress{}, said: time.Now()}
}

// Layer takes in how far a layer is.
func (p *Pull) Layer(l image.LayerProgress) {
	if _, ok := p.layers[l.Digest]; !ok {
		p.order = append(p.order, l.Digest)
	}
	p.layers[l.Digest] = l
	done, total, whole := p.sum()
	state := fmt.Sprintf("%s/%s, %d of %d layers", megabytes(done), megabytes(total), whole, l.Layers)
	if p.live {
		filled := barWidth
		if total > 0 {
			filled = int(barWidth * done / total)
		}
		fmt.Fprintf(p.w, "\r\033[K %s [%s%s] %s", p.name, strings.Repeat("=", filled), strings.Repeat(" ", barWidth-filled), state)
		return
	}
	short := strings.TrimPrefix(l.Digest, "sha256:")
	short = short[:min(12, len(short))]
	switch {
	case l.State == image.LayerPulled:
		fmt.Fprintf(p.w, "%s: pulled %s\n", short, megabytes(l.Total))
	case l.State == image.LayerPresent:
		fmt.Fprintf(p.w, "%s: already here\n", short)
	case time.Since(p.said) < plainEvery:
		return
	default:
		fmt.Fprintf(p.w, "%s: %s\n", p.name, state)
	}
	p.said = time.Now()
}

// sum adds up the layers that are known.
func (p *Pull) sum() (done, total int64, whole int) {
	for _, digest := range p.order {
		l := p.layers[digest]
		done, total = done+min(l.Done, l.Total), total+l.Total
		if l.State == image.LayerPulled || l.State == image.LayerPresent {
			whole++
		}
	}
	return done, total, whole
}

// Close removes the bar.
func (p *Pull) Close() { p.Clear() }

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
