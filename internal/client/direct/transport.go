// SPDX-License-Identifier: Apache-2.0

package direct

import (
	"io"
	"net/http"
	"sync"
)

// Transport returns a RoundTripper that hands requests to a handler of the same
// process, for libraries that want a REST configuration. Answers stream; no
// socket is opened. Upgraded connections (exec, port-forward) are not possible.
func Transport(h http.Handler) http.RoundTripper { return transport{h} }

type transport struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context())
	in.RequestURI = r.URL.RequestURI()
	in.RemoteAddr = "127.0.0.1:0"
	if in.Body == nil {
		in.Body = http.NoBody
	}
	reader, writer := io.Pipe()
	a := &answer{header: http.Header{}, body: writer, begun: make(chan struct{})}
	go func() {
		defer func() {
			var err error
			if reason := recover(); reason != nil {
				err = io.ErrUnexpectedEOF // the handler gave the answer up
			}
			a.WriteHeader(http.StatusOK)
			writer.CloseWithError(err)
		}()
		t.handler.ServeHTTP(a, in)
	}()
	select {
	case <-a.begun:
	case <-r.Context().Done():
		reader.CloseWithError(r.Context().Err())
		return nil, r.Context().Err()
	}
	return &http.Response{
		Status: http.StatusText(a.code), StatusCode: a.code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.sent, Body: reader, ContentLength: -1, Request: r,
	}, nil
}

// answer is the ResponseWriter of one request.
type answer struct {
	header, sent http.Header
	code         int
	once         sync.Once
	begun        chan struct{}
	body         *io.PipeWriter
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(code int) {
	a.once.Do(func() {
		a.code, a.sent = code, a.header.Clone()
		close(a.begun)
	})
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// Flush implements http.Flusher: nothing is held back.
func (a *answer) Flush() { a.WriteHeader(http.StatusOK) }
