// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// watch ends a request in which nothing has moved for too long.
type watch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  atomic.Int64
	ended  atomic.Bool
}

func newWatch(ctx context.Context, limit time.Duration) *watch {
	w := &watch{}
	w.limit.Store(int64(limit))
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	if limit > 0 {
		w.timer = time.AfterFunc(limit, func() { w.cancel(ErrTimeout) })
	}
	return w
}

// again starts the time anew.
func (w *watch) again() {
	if limit := time.Duration(w.limit.Load()); w.timer != nil && !w.ended.Load() && limit > 0 {
		w.timer.Reset(limit)
	}
}

// limitTo makes the limit another, from the next time it starts anew.
func (w *watch) limitTo(limit time.Duration) { w.limit.Store(int64(limit)) }

// off ends the watching, not the request.
func (w *watch) off() {
	w.ended.Store(true)
	if w.timer != nil {
		w.timer.Stop()
	}
}

func (w *watch) stop() {
	w.off()
	w.cancel(nil)
}

// follow watches over the answer's body. A connection that became something
// else, such as a WebSocket, may be silent as long as it likes.
func (w *watch) follow(answer *http.Response) *http.Response {
	if answer.StatusCode == http.StatusSwitchingProtocols {
		w.off()
		return answer
	}
	w.again()
	answer.Body = &followed{answer.Body, w}
	return answer
}

type followed struct {
	io.ReadCloser
	watch *watch
}

func (f *followed) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if err != nil {
		f.watch.stop()
	} else {
		f.watch.again()
	}
	return n, err
}

func (f *followed) Close() error {
	err := f.ReadCloser.Close()
	f.watch.stop()
	return err
}
