// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"net"
	"net/http"
)

// writer notes the status of an answer before its first byte is out. It hands
// on what lies below it for streams and upgrades.
type writer struct {
	http.ResponseWriter
	rec     *Record
	started bool // the beginning of the answer is a stage of its own
	noted   bool
}

func (w *writer) note(code int) {
	if w.noted || code < http.StatusOK && code != http.StatusSwitchingProtocols {
		return
	}
	w.noted = true
	w.rec.answered(code, w.started)
}

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(code int) {
	w.note(code)
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *writer) Write(p []byte) (int, error) {
	w.note(http.StatusOK)
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach what lies below.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements http.Flusher.
func (w *writer) Flush() {
	w.note(http.StatusOK)
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack implements http.Hijacker; it fails over HTTP/2.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.note(http.StatusSwitchingProtocols)
	return http.NewResponseController(w.ResponseWriter).Hijack()
}
