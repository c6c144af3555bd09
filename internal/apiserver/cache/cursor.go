// SPDX-License-Identifier: Apache-2.0

package cache

import "context"

// Cursor walks the events of one kind in order. It belongs to one goroutine
// and holds nothing but its place: thousands of idle ones cost next to nothing.
type Cursor struct {
	past  []*Event // read back from the store, delivered first
	at    *link    // the last link seen
	skip  int64    // events up to here are not delivered
	ended <-chan struct{}
}

// Ready returns a channel that is closed when TryNext has something to say, be
// it that no more will come.
func (c *Cursor) Ready() <-chan struct{} {
	if len(c.past) > 0 {
		return closed
	}
	return c.at.ready
}

// Ended returns a channel that is closed when no more events will come.
func (c *Cursor) Ended() <-chan struct{} { return c.ended }

// TryNext returns the next event, or nil when there is none yet. It returns
// ErrEnded when the cursor was left too far behind.
func (c *Cursor) TryNext() (*Event, error) {
	if len(c.past) > 0 {
		event := c.past[0]
		c.past = c.past[1:]
		return event, nil
	}
	for {
		select {
		case <-c.at.ready:
		default:
			return nil, nil
		}
		next := c.at.next.Load()
		if next == nil {
			return nil, ErrEnded
		}
		c.at = next
		if next.revision > c.skip {
			return &next.event, nil
		}
	}
}

// Next waits for the next event. It returns ErrEnded when no more will come.
func (c *Cursor) Next(ctx context.Context) (*Event, error) {
	for {
		if event, err := c.TryNext(); event != nil || err != nil {
			return event, err
		}
		select {
		case <-c.Ready():
		case <-c.ended:
			return nil, ErrEnded
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// AtEnd says whether the cursor has seen all there is, and will see whatever
// comes. known is a revision whose events the cache had before the call: a cursor
// that stands after one that is still to come is not at the end.
func (c *Cursor) AtEnd(known int64) bool {
	if len(c.past) > 0 || c.skip > known {
		return false
	}
	select {
	case <-c.at.ready:
		return false
	default:
		return true
	}
}

// Same says whether two cursors that have been at the end stand at one place.
func (c *Cursor) Same(other *Cursor) bool { return c.at == other.at }

// Skip moves the cursor behind all there is. It returns ErrEnded when no more
// will come.
func (c *Cursor) Skip() error {
	for {
		if event, err := c.TryNext(); event == nil || err != nil {
			return err
		}
	}
}
