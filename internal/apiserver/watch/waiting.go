// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"kaji/internal/apiserver/h2"
	"kaji/internal/apiserver/request"
)

// waiting is a watch that goes on without its handler. While it waits in its
// dispatcher nobody runs for it: an idle watch costs what it holds, and no stack.
// Whoever wakes it starts a goroutine, and there is one at most.
type waiting struct {
	*server
	answer h2.Answer
	place

	mu     sync.Mutex  // held while it is put to wait
	parked atomic.Bool // it waits, and who makes this false is to wake it
	timer  *time.Timer // for bookmarks; nil without them
	// forget undoes that the end of its context wakes it.
	forget func() bool
	over   func() // ends the request
}

// detach lets a watch that has sent everything go on without its handler.
func detach(s *server, in *request.Info, answer h2.Answer) {
	w := &waiting{server: s, answer: answer, over: in.Outlive()}
	w.forget = context.AfterFunc(s.ctx, w.wake)
	if !s.bookmark.IsZero() {
		w.timer = time.AfterFunc(s.untilBookmark(), w.wake)
	}
	answer.Detach(func() { w.run(true) })
}

// wake has the watch go on if it waits.
func (w *waiting) wake() {
	if w.parked.CompareAndSwap(true, false) {
		w.answer.Go(w.resume)
	}
}

// resume goes on where somebody woke the watch.
func (w *waiting) resume() {
	w.mu.Lock()   // it may be on its way to wait
	w.mu.Unlock() //nolint:staticcheck // nothing is to be done meanwhile
	w.cfg.Dispatcher.leave(w)
	w.run(false)
}

// run serves the watch until it waits in the dispatcher, or is over. idle says
// that there was nothing to send a moment ago.
func (w *waiting) run(idle bool) {
	waits := false
	defer func() {
		if !waits { // or something has panicked
			w.finish()
		}
	}()
	for idle || w.step() {
		idle = false
		if waits = w.park(); waits || w.ctx.Err() != nil || !w.wait() {
			return
		}
	}
}

// park puts the watch to wait in the dispatcher. It is false when that cannot
// have it now.
func (w *waiting) park() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.parked.Store(true)
	joined := w.cfg.Dispatcher.join(w)
	if joined && w.ctx.Err() == nil {
		if w.timer != nil {
			w.timer.Reset(w.untilBookmark())
		}
		return true
	}
	// Somebody may have woken it meanwhile, who has it then.
	return !w.parked.CompareAndSwap(true, false)
}

// finish ends the watch.
func (w *waiting) finish() {
	w.cfg.Dispatcher.leave(w)
	w.forget()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.out.close()
	w.end()
	w.over()
	w.answer.End()
}
