// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"sync"
)

// Leftover is work that may outlive its component, such as answers that are
// still being sent when a server ends. Whoever ends the process decides how long
// it may go on. It is safe for concurrent use; create it with NewLeftover.
type Leftover struct {
	running sync.WaitGroup
	ctx     context.Context
	end     context.CancelFunc
}

// NewLeftover returns one without work.
func NewLeftover() *Leftover {
	ctx, end := context.WithCancel(context.Background())
	return &Leftover{ctx: ctx, end: end}
}

// Go runs work, which must end soon after its context does. It must not be
// called once Wait has been.
func (l *Leftover) Go(work func(context.Context)) {
	l.running.Go(func() { work(l.ctx) })
}

// Wait returns once all work is done; when ctx ends, the work is ended, too.
func (l *Leftover) Wait(ctx context.Context) {
	defer context.AfterFunc(ctx, l.end)()
	l.running.Wait()
}
