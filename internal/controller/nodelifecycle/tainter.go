// SPDX-License-Identifier: Apache-2.0

package nodelifecycle

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// retryAfter is when a node that could not be tainted has its next turn.
const retryAfter = 50 * time.Millisecond

// tainter gives the nodes of each zone their turn, one after the other at the
// zone's rate. It sleeps while no node may have one.
type tainter struct {
	taint func(ctx context.Context, node string) error
	log   *slog.Logger
	wake  chan struct{}

	mu    sync.Mutex
	zones map[string]*line // guarded by mu
}

// line is the queue of a zone.
type line struct {
	nodes []string
	rate  float64 // turns a second; 0 stops
	next  time.Time
	last  time.Time
}

func newTainter(taint func(context.Context, string) error, log *slog.Logger) *tainter {
	return &tainter{taint: taint, log: log, wake: make(chan struct{}, 1), zones: map[string]*line{}}
}

func (t *tainter) of(zone string) *line {
	l := t.zones[zone]
	if l == nil {
		l = &line{}
		t.zones[zone] = l
	}
	return l
}

func (t *tainter) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// setRate changes how many nodes of a zone have their turn in a second.
func (t *tainter) setRate(zone string, rate float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.of(zone)
	if l.rate = rate; rate > 0 && !l.last.IsZero() {
		l.next = l.last.Add(time.Duration(float64(time.Second) / rate))
	}
	t.signal()
}

// add queues a node that is not queued.
func (t *tainter) add(zone, node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.of(zone); !slices.Contains(l.nodes, node) {
		l.nodes = append(l.nodes, node)
		t.signal()
	}
}

func (t *tainter) remove(zone, node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.of(zone)
	l.nodes = slices.DeleteFunc(l.nodes, func(n string) bool { return n == node })
}

// take returns the node of a zone whose turn it is, or how long none has it;
// a negative time is until the next change.
func (t *tainter) take(now time.Time) (zone, node string, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	wait = -1
	for name, l := range t.zones {
		if len(l.nodes) == 0 || l.rate <= 0 {
			continue
		}
		if after := l.next.Sub(now); after > 0 {
			if wait < 0 || after < wait {
				wait = after
			}
			continue
		}
		node, l.nodes = l.nodes[0], l.nodes[1:]
		l.last, l.next = now, now.Add(time.Duration(float64(time.Second)/l.rate))
		return name, node, 0
	}
	return "", "", wait
}

func (t *tainter) run(ctx context.Context) {
	for ctx.Err() == nil {
		zone, node, wait := t.take(time.Now())
		if node != "" {
			if err := t.taint(ctx, node); err != nil && ctx.Err() == nil {
				t.log.Warn("a node could not be tainted, it is tried again", "node", node, "err", err)
				t.failed(zone, node)
			}
			continue
		}
		var due <-chan time.Time
		if wait >= 0 {
			due = time.After(wait)
		}
		select {
		case <-ctx.Done():
		case <-t.wake:
		case <-due:
		}
	}
}

// failed gives a node another turn soon; what failed has used no turn up.
func (t *tainter) failed(zone, node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.of(zone)
	if !slices.Contains(l.nodes, node) {
		l.nodes = append(l.nodes, node)
	}
	l.next = time.Now().Add(retryAfter)
}
