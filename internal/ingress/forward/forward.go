// SPDX-License-Identifier: Apache-2.0

// Package forward passes a request on to a backend and its answer back: what
// Ingresses and Gateways have in common once they know where it goes. Nothing is
// kept in memory as a whole; what streams goes on at once.
package forward

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"kaji/internal/ingress/upstream"
)

// statusClientClosed is nginx's word for a client that did not wait.
const statusClientClosed = 499

// Exchange is one request on its way.
type Exchange struct {
	upstream.Call
	// Secure says that the request came by TLS, to Port, from Client.
	Secure bool
	Port   uint16
	Client netip.Addr
	// BodySize bounds the request's body in bytes; zero is no bound.
	BodySize int64
	// Rewrite changes what the backend is asked; it may be nil.
	Rewrite func(out *http.Request)
	// Modify changes what the client is answered; it may be nil.
	Modify func(answer *http.Response)
	// Bare leaves the headers as they came, except for X-Forwarded-…
	Bare bool
	// Failed answers, where no backend did, with a status; it may be nil.
	Failed func(w http.ResponseWriter, status int)
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *Exchange { return ctx.Value(exchangeKey{}).(*Exchange) }

// Proxy forwards requests. Create it with New; it is safe for concurrent use.
type Proxy struct {
	transport *upstream.Transport
	reverse   *httputil.ReverseProxy
	log       *slog.Logger
}

// New returns a proxy; dial is upstream.Guarded when nil.
func New(dial upstream.Dial, log *slog.Logger) *Proxy {
	p := &Proxy{transport: upstream.New(dial), log: log}
	p.reverse = &httputil.ReverseProxy{
		Rewrite: rewrite, Transport: p.transport, ErrorHandler: p.failed,
		ModifyResponse: func(answer *http.Response) error {
			if x := exchangeOf(answer.Request.Context()); x.Modify != nil {
				x.Modify(answer)
			}
			return nil
		},
		// Answers of unknown length and events go on at once without a
		// FlushInterval; for all others it would only mean more system calls.
		BufferPool: &buffers{sync.Pool{New: func() any { return new([bufferSize]byte) }}},
		ErrorLog:   slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return p
}

// Close closes the connections that are not in use.
func (p *Proxy) Close() { p.transport.Close() }

// Transport carries the proxy's requests; mirrors and others may use it, too.
func (p *Proxy) Transport() http.RoundTripper { return p.transport }

// Serve forwards a request and answers it.
func (p *Proxy) Serve(w http.ResponseWriter, r *http.Request, x *Exchange) {
	if x.BodySize > 0 {
		if r.ContentLength > x.BodySize {
			x.answer(w, http.StatusRequestEntityTooLarge)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, x.BodySize)
	}
	ctx := upstream.With(context.WithValue(r.Context(), exchangeKey{}, x), &x.Call)
	p.reverse.ServeHTTP(w, r.WithContext(ctx))
}

// rewrite prepares the request for the backend.
func rewrite(p *httputil.ProxyRequest) {
	x := exchangeOf(p.In.Context())
	out := p.Out
	out.URL.Scheme, out.URL.Host = "http", "backend" // package upstream knows better
	out.URL.RawQuery = p.In.URL.RawQuery             // it is the backend's to judge
	x.headers(p.In, out.Header)
	if x.Rewrite != nil {
		x.Rewrite(out)
	}
}

// headers tells the backend who asks. What the client says of it is not believed.
func (x *Exchange) headers(in *http.Request, h http.Header) {
	scheme := "http"
	if x.Secure {
		scheme = "https"
	}
	client := x.Client.String()
	Disown(h, func(name string) bool {
		return strings.HasPrefix(name, "X-Forwarded-") || name == "X-Real-Ip" || name == "X-Scheme"
	})
	values := make([]string, 0, 8) // one allocation for all of them
	set := func(name, value string) {
		values = append(values, value)
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	set("X-Forwarded-For", client)
	set("X-Forwarded-Host", in.Host)
	set("X-Forwarded-Proto", scheme)
	set("X-Forwarded-Port", strconv.Itoa(int(x.Port)))
	if x.Bare {
		return
	}
	set("X-Real-Ip", client)
	set("X-Forwarded-Scheme", scheme)
	set("X-Scheme", scheme)
	if len(h["X-Request-Id"]) == 0 {
		var id [16]byte
		_, _ = rand.Read(id[:]) // it never fails
		set("X-Request-Id", hex.EncodeToString(id[:]))
	}
}

// Disown deletes headers that are no other than the proxy's own to programs that
// take "_" for "-", as CGI does; own is asked by a name in its usual spelling.
func Disown(h http.Header, own func(name string) bool) {
	for name := range h {
		if strings.Contains(name, "_") && own(http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))) {
			delete(h, name)
		}
	}
}

// failed answers where the backend did not.
func (p *Proxy) failed(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	status := statusOf(r.Context(), err)
	if status != statusClientClosed {
		p.log.Debug("a request did not reach its backend", "host", r.Host, "status", status, "err", err)
	}
	x.answer(w, status)
}

func statusOf(ctx context.Context, err error) int {
	var large *http.MaxBytesError
	var network net.Error
	switch {
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, upstream.ErrNoEndpoints):
		return http.StatusServiceUnavailable
	case errors.Is(err, upstream.ErrTimeout), errors.As(err, &network) && network.Timeout():
		return http.StatusGatewayTimeout
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	case ctx.Err() != nil:
		return statusClientClosed
	}
	return http.StatusBadGateway
}

func (x *Exchange) answer(w http.ResponseWriter, status int) {
	if x.Failed != nil {
		x.Failed(w, status)
		return
	}
	Answer(w, status, "")
}

// Answer answers with a status and a line of text, the status' own when empty.
func Answer(w http.ResponseWriter, status int, text string) {
	if text == "" {
		text = strconv.Itoa(status) + " " + http.StatusText(status)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // a client that left needs no answer
}

// ClientOf returns the address a request came from.
func ClientOf(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap().WithZone("")
}

const bufferSize = 32 << 10

// buffers lends the buffers that bodies are copied through.
type buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte { return b.pool.Get().(*[bufferSize]byte)[:] }

// Put implements httputil.BufferPool.
func (b *buffers) Put(p []byte) { b.pool.Put((*[bufferSize]byte)(p)) }

// Recorder remembers the status that was answered.
type Recorder struct {
	http.ResponseWriter
	Status int
}

// WriteHeader implements http.ResponseWriter.
func (r *Recorder) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		r.Status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController find what the writer can do.
func (r *Recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
