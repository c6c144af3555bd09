// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// response is the http.ResponseWriter of a stream, and its Answer. Like any, it
// belongs to the handler's goroutine, and once it is detached to who has it then.
type response struct {
	st      *stream
	method  string
	header  http.Header
	status  int         // zero before WriteHeader
	sealed  http.Header // the header as it was at WriteHeader
	sent    bool        // the head is sent
	done    bool        // the handler has returned, or the answer ended
	then    func()      // goes on when the handler has returned, when set
	buf     *[]byte     // what is written and not yet sent; nil when empty
	length  int64       // the Content-Length that was promised, or -1
	written int64
}

// bufferSize is how much of an answer is gathered before it is sent unasked.
const bufferSize = 4 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, bufferSize); return &b }}

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(code int) {
	if w.status != 0 {
		return
	}
	if code < 100 || code > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", code))
	}
	if code < 200 { // there is more to come
		w.st.c.mu.Lock()
		defer w.st.c.mu.Unlock()
		if w.st.err == nil {
			w.st.c.head(w.st.id, code, w.header, false)
			w.st.c.flush()
		}
		return
	}
	w.status, w.length = code, -1
	w.sealed = w.header.Clone()
	if promised := w.sealed.Get("Content-Length"); promised != "" {
		n, err := strconv.ParseUint(promised, 10, 63)
		if err != nil {
			w.sealed.Del("Content-Length")
			return
		}
		w.length = int64(n)
	}
}

// bodyAllowed says whether the answer may have a body.
func (w *response) bodyAllowed() bool {
	return w.status != http.StatusNoContent && w.status != http.StatusNotModified
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	if w.done {
		return 0, errOver
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !w.bodyAllowed() {
		return 0, http.ErrBodyNotAllowed
	}
	if w.written += int64(len(p)); w.length >= 0 && w.written > w.length {
		return 0, http.ErrContentLength
	}
	if w.buf == nil {
		if len(p) > bufferSize {
			return len(p), w.send(nil, p, false)
		}
		w.buf = buffers.Get().(*[]byte)
	}
	if len(*w.buf)+len(p) > bufferSize {
		err := w.send(*w.buf, p, false)
		w.drop()
		return len(p), err
	}
	*w.buf = append(*w.buf, p...)
	return len(p), nil
}

// WriteString implements io.StringWriter.
func (w *response) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// drop lets the buffer go.
func (w *response) drop() {
	if w.buf != nil {
		*w.buf = (*w.buf)[:0]
		buffers.Put(w.buf)
		w.buf = nil
	}
}

// buffered returns what waits to be sent.
func (w *response) buffered() []byte {
	if w.buf == nil {
		return nil
	}
	return *w.buf
}

// FlushError is what http.ResponseController flushes by.
func (w *response) FlushError() error {
	if w.done {
		return errOver
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	err := w.send(w.buffered(), nil, false)
	w.drop()
	return err
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.FlushError() }

// EnableFullDuplex is for http.ResponseController; HTTP/2 is always so.
func (w *response) EnableFullDuplex() error { return nil }

// finish sends what is left when the handler has returned.
func (w *response) finish() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	_ = w.send(w.buffered(), nil, true)
	w.done = true
	w.drop()
}

// send sends the head, if it is not sent yet, and two pieces of the body.
func (w *response) send(a, b []byte, end bool) error {
	st := w.st
	c := st.c
	head := w.method == http.MethodHead
	var trailer http.Header
	if end {
		trailer = w.trailer()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.flush()
	if st.err != nil {
		return st.err
	}
	if !w.sent {
		w.sent = true
		w.complete(a, b, end)
		if w.sealed.Get("Connection") == "close" {
			c.leaveLocked()
		}
		over := head || end && len(a)+len(b) == 0 && len(trailer) == 0
		c.head(st.id, w.status, w.sealed, over)
		if over {
			return nil
		}
	}
	switch {
	case head:
		return nil
	case len(trailer) == 0:
		return c.send(st, a, b, end)
	}
	if err := c.send(st, a, b, false); err != nil {
		return err
	}
	c.head(st.id, 0, trailer, true)
	return nil
}

// complete adds to the head what the handler has left out. a and b are the
// beginning of the body, or all of it at the end.
func (w *response) complete(a, b []byte, end bool) {
	h := w.sealed
	size := len(a) + len(b)
	if end && w.length < 0 && w.bodyAllowed() && (size > 0 || w.method != http.MethodHead) {
		h.Set("Content-Length", strconv.Itoa(size))
	}
	if _, ok := h["Content-Type"]; !ok && h.Get("Content-Encoding") == "" && w.bodyAllowed() && size > 0 {
		if len(a) == 0 {
			a = b
		}
		h.Set("Content-Type", http.DetectContentType(a))
	}
	if _, ok := h["Date"]; !ok {
		h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	for name := range h {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			delete(h, name)
		}
	}
}

// trailer returns what is to be sent behind the body: headers that were promised
// as such, or that say so by their names.
func (w *response) trailer() http.Header {
	var t http.Header
	for name, values := range w.header {
		if bare, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			if t == nil {
				t = http.Header{}
			}
			t[http.CanonicalHeaderKey(bare)] = values
		}
	}
	for _, names := range w.sealed["Trailer"] {
		for name := range strings.SplitSeq(names, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			if values := w.header[name]; len(values) > 0 {
				if t == nil {
					t = http.Header{}
				}
				t[name] = slices.Clone(values)
			}
		}
	}
	return maps.Clone(t)
}
