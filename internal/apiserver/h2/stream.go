// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// stream is one request and its answer. Its fields are guarded by the
// connection's lock, save for those that do not change.
type stream struct {
	c      *conn
	id     uint32
	ctx    context.Context //nolint:containedctx // the request's
	cancel context.CancelFunc
	start  func() // runs the handler

	window int64 // what may still be sent
	err    error // the stream is over: why

	body     bytes.Buffer // received and not yet read
	ended    bool         // no more will come
	arrived  sync.Cond    // something has come, or the stream is over
	inWindow int          // what the client may still send
	credit   int          // what was read of that, and the client does not know of
	declared int64        // bytes that are still to come; -1 when unknown
	trailer  http.Header  // what the request promises behind its body
}

// onHeaders opens a stream, or ends a body.
func (c *conn) onHeaders(f *http2.MetaHeadersFrame) error {
	id := f.StreamID
	if id%2 == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if st := c.streams[id]; st != nil {
		return st.onTrailers(f)
	}
	switch {
	case c.leaving && id > c.last:
		return nil // the client was told that nobody looks at it
	case id <= c.last:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	c.last = id
	if len(c.streams) >= c.cfg.MaxStreams {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeRefusedStream}
	}
	st := &stream{c: c, id: id, window: c.initial, inWindow: streamWindow, ended: f.StreamEnded()}
	st.arrived.L = &c.mu
	r, err := c.request(st, f)
	if err != nil {
		return err
	}
	st.declared = r.ContentLength
	h := c.handler
	if f.Truncated {
		h = refusal(http.StatusRequestHeaderFieldsTooLarge, "Request Header Fields Too Large")
	} else if name := forbidden(r.Header); name != "" {
		h = refusal(http.StatusBadRequest, fmt.Sprintf("request header %q is not valid in HTTP/2", name))
	}
	st.ctx, st.cancel = context.WithCancel(c.ctx)
	r = r.WithContext(st.ctx)
	st.start = func() { st.run(h, r) }
	c.streams[id] = st
	c.idle.Stop()
	return c.schedule(st)
}

func refusal(code int, text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, code) })
}

// schedule runs a stream's handler once fewer run than the client may have
// streams: one that resets streams as fast as it opens them waits.
func (c *conn) schedule(st *stream) error {
	if c.running < c.cfg.MaxStreams {
		c.begin(st)
		return nil
	}
	if len(c.waiting) >= 4*c.cfg.MaxStreams {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	c.waiting = append(c.waiting, st)
	return nil
}

func (c *conn) begin(st *stream) {
	c.running++
	c.all.Go(st.start)
	st.start = nil // an answer may go on for long without its request
}

// scheduleNext is told that a handler has ended.
func (c *conn) scheduleNext() {
	c.running--
	for len(c.waiting) > 0 && c.err == nil {
		st := c.waiting[0]
		c.waiting[0] = nil
		c.waiting = c.waiting[1:]
		if st.err == nil {
			c.begin(st)
			return
		}
	}
}

func (st *stream) onTrailers(f *http2.MetaHeadersFrame) error {
	switch {
	case st.err != nil: // it lingers
		st.c.forget(st)
		return nil
	case st.ended:
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeStreamClosed}
	case !f.StreamEnded() || len(f.PseudoFields()) > 0:
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol}
	}
	for _, field := range f.RegularFields() {
		name := st.c.canonicalName(field.Name)
		if _, promised := st.trailer[name]; promised {
			st.trailer[name] = append(st.trailer[name], field.Value)
		}
	}
	return st.end()
}

// end is the end of the request's body.
func (st *stream) end() error {
	if st.declared > 0 {
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol}
	}
	st.ended = true
	st.arrived.Broadcast()
	return nil
}

func (c *conn) onData(f *http2.DataFrame) error {
	if f.StreamID > c.last || f.StreamID%2 == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	size, data := int(f.Length), f.Data()
	if c.inWindow -= size; c.inWindow < 0 {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	st := c.streams[f.StreamID]
	if st == nil || st.ended {
		c.consumed(nil, size)
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
	}
	if st.inWindow -= size; st.inWindow < 0 {
		c.consumed(nil, size)
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	}
	if st.err != nil { // it lingers
		c.consumed(nil, size)
		if f.StreamEnded() {
			c.forget(st)
		}
		return nil
	}
	if st.declared >= 0 {
		if st.declared -= int64(len(data)); st.declared < 0 {
			c.consumed(nil, size)
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
		}
	}
	st.body.Write(data)
	c.consumed(st, size-len(data)) // the padding
	if f.StreamEnded() {
		return st.end()
	}
	st.arrived.Broadcast()
	return nil
}

// fail ends the stream; conn.mu is held.
func (st *stream) fail(err error) {
	if st.err != nil {
		return
	}
	st.err = err
	st.cancel()
	st.arrived.Broadcast()
	st.c.room.Broadcast()
}

// run answers the request.
func (st *stream) run(h http.Handler, r *http.Request) {
	c := st.c
	w := &response{st: st, method: r.Method, header: http.Header{}}
	defer func() {
		switch reason := recover(); {
		case reason != nil:
			c.panicked(reason)
			st.over(reason)
			if w.then != nil {
				c.all.Done()
			}
		case w.then != nil:
			w.Go(w.then)
		default:
			st.over(nil)
		}
	}()
	h.ServeHTTP(w, r)
	if w.then == nil {
		w.finish()
	}
}

// panicked tells of a handler's panic.
func (c *conn) panicked(reason any) {
	if reason != http.ErrAbortHandler { //nolint:errorlint // the value itself is the signal
		c.cfg.Logger.Error("handler panicked", "client", c.remote, "panic", reason, "stack", string(debug.Stack()))
	}
}

// over ends the stream of a request that is answered, or whose handler panicked.
func (st *stream) over(reason any) {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case st.err != nil:
		c.forget(st)
	case reason != nil:
		c.reset(st.id, http2.ErrCodeInternal)
	case !st.ended:
		st.linger()
	default:
		st.fail(errOver)
		c.forget(st)
	}
	c.flush()
	c.scheduleNext()
}

// linger ends a stream that is answered and whose body still comes, which
// nobody wants. Some clients, curl among them, lose an answer that a reset
// follows at once; they get a moment to end the stream themselves.
func (st *stream) linger() {
	c := st.c
	st.fail(errOver)
	c.consumed(nil, st.body.Len())
	st.body = bytes.Buffer{}
	time.AfterFunc(lingering, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err == nil && c.streams[st.id] == st {
			c.reset(st.id, http2.ErrCodeNo)
			c.flush()
		}
	})
}

// errOver is what handlers get who go on after they returned.
var errOver = errors.New("http2: the handler has returned")

// body is the body of a request, read by its handler.
type body struct {
	st *stream
	// expected says that the client waits for a word before it sends the body.
	expected bool
	closed   bool
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	st := b.st
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	if b.expected {
		b.expected = false
		c.head(st.id, http.StatusContinue, nil, false)
		c.flush()
	}
	for st.body.Len() == 0 {
		switch {
		case st.ended:
			return 0, io.EOF
		case st.err != nil:
			return 0, st.err
		case len(p) == 0:
			return 0, nil
		}
		st.arrived.Wait()
	}
	n, _ := st.body.Read(p)
	c.consumed(st, n)
	c.flush()
	return n, nil
}

// Close implements io.Closer.
func (b *body) Close() error {
	b.st.c.mu.Lock()
	defer b.st.c.mu.Unlock()
	b.closed = true
	return nil
}
