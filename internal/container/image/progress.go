// SPDX-License-Identifier: Apache-2.0

package image

import (
	"io"
	"sync"
	"time"
)

// LayerState says what has become of a layer of a pull.
type LayerState string

// The states.
const (
	LayerWaiting LayerState = "waiting" // for others, or for the registry's answer
	LayerPulling LayerState = "pulling" // bytes come
	LayerPulled  LayerState = "pulled"  // it is checked, unpacked and kept
	LayerPresent LayerState = "present" // it was here already
)

// LayerProgress is how far the pull of one layer has come.
type LayerProgress struct {
	Digest string     `json:"digest"`
	State  LayerState `json:"state"`
	// Done of Total bytes have come, as they are transferred.
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
	// Layers is how many layers the image has.
	Layers int `json:"layers"`
}

// tellEvery is how often a layer that comes is told of.
const tellEvery = 100 * time.Millisecond

// teller passes on the progress of all layers of a pull, one call at a time; nil
// tells nobody.
type teller struct {
	mu     sync.Mutex
	tell   func(LayerProgress)
	layers int
}

func (t *teller) say(p LayerProgress) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p.Layers = t.layers
	t.tell(p)
}

// counted is a layer's stream that tells how far it is.
type counted struct {
	in   io.Reader
	to   *teller
	last time.Time
	at   LayerProgress
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.at.Done += int64(n)
	if now := time.Now(); now.Sub(c.last) >= tellEvery {
		c.last = now
		c.to.say(c.at)
	}
	return n, err
}
