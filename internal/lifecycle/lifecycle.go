// SPDX-License-Identifier: Apache-2.0

// Package lifecycle runs the parts of a process side by side and ends them
// together. Package app hands it the components; it knows none of them.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// Group owns the goroutines of a process. Parts started first are stopped last:
// Stop ends them in reverse order, each waiting for the one before, so that the
// API server outlives its clients. The zero value is not usable; call New.
type Group struct {
	log    *slog.Logger
	ctx    context.Context
	failed context.CancelCauseFunc

	mu    sync.Mutex
	parts []*part
}

type part struct {
	name string
	stop context.CancelFunc
	done chan struct{}
	err  error
}

// New returns a group whose parts end when ctx does.
func New(ctx context.Context, log *slog.Logger) *Group {
	inner, cancel := context.WithCancelCause(ctx)
	return &Group{log: log, ctx: inner, failed: cancel}
}

// Stop asks the group to end, without an error; Wait does the rest.
func (g *Group) Stop() { g.failed(context.Canceled) }

// Go runs a part in its own goroutine. A part that returns an error while the
// group is running ends the group with that error.
func (g *Group) Go(name string, run func(context.Context) error) {
	// The part's context is not a child of the group's: Stop decides the order.
	ctx, cancel := context.WithCancel(context.WithoutCancel(g.ctx))
	p := &part{name: name, stop: cancel, done: make(chan struct{})}
	g.mu.Lock()
	g.parts = append(g.parts, p)
	g.mu.Unlock()
	go func() {
		defer close(p.done)
		defer cancel()
		err := run(ctx)
		if err == nil || (ctx.Err() != nil && errors.Is(err, context.Canceled)) {
			return
		}
		p.err = fmt.Errorf("%s: %w", name, err)
		g.log.Error("component failed", "component", name, "err", err)
		g.failed(p.err)
	}()
}

// Wait blocks until the context given to New ends or a part fails, stops all
// parts in reverse order and returns the first failure.
func (g *Group) Wait() error {
	<-g.ctx.Done()
	g.mu.Lock()
	parts := g.parts
	g.mu.Unlock()
	for i := len(parts) - 1; i >= 0; i-- {
		parts[i].stop()
		<-parts[i].done
		g.log.Debug("component stopped", "component", parts[i].name)
	}
	if cause := context.Cause(g.ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}
