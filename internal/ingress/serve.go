// SPDX-License-Identifier: Apache-2.0

package ingress

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
	"time"

	"kaji/internal/ingress/annotation"
	"kaji/internal/ingress/route"
	"kaji/internal/ingress/upstream"
)

// statusClientClosed is nginx's word for a client that did not wait.
const statusClientClosed = 499

// front answers the requests of one listener.
type front struct {
	c      *Controller
	secure bool
}

// request is what is known of a request on its way.
type request struct {
	rule   *route.Rule
	secure bool
	client netip.Addr
	path   string
}

type requestKey struct{}

func requestOf(ctx context.Context) *request { return ctx.Value(requestKey{}).(*request) }

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := f.c.current.Load()
	q := &request{secure: f.secure, client: clientOf(r), path: route.Clean(r.URL.Path)}
	q.rule = now.table.Match(route.Host(r.Host), q.path)
	seen := &recorder{ResponseWriter: w, status: http.StatusOK}
	started := time.Now()
	defer func() { f.c.metrics.served(q.rule, seen.status, time.Since(started)) }()
	switch {
	case q.rule == nil:
		answer(seen, http.StatusNotFound, "default backend - 404")
	case f.c.admit(seen, r, q):
		f.c.forward(seen, r, q, now)
	}
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // a client that left needs no answer
}

func clientOf(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap().WithZone("")
}

func (c *Controller) forward(w http.ResponseWriter, r *http.Request, q *request, now *snapshot) {
	if q.rule.Backend == nil {
		answer(w, http.StatusServiceUnavailable, "the backend is not a Service")
		return
	}
	s := q.rule.Settings
	if s.BodySize > 0 {
		if r.ContentLength > s.BodySize {
			answer(w, http.StatusRequestEntityTooLarge, "the request's body is larger than this Ingress allows")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, s.BodySize)
	}
	call := &upstream.Call{Pool: now.pools[*q.rule.Backend], Connect: s.ConnectTimeout, ReadTimeout: s.ReadTimeout,
		TLS:   s.Protocol == annotation.HTTPS || s.Protocol == annotation.GRPCS,
		HTTP2: s.Protocol == annotation.GRPC || s.Protocol == annotation.GRPCS}
	if s.Affinity != nil {
		if cookie, err := r.Cookie(s.Affinity.Name); err == nil {
			call.Sticky = cookie.Value
		}
	}
	ctx := upstream.With(context.WithValue(r.Context(), requestKey{}, q), call)
	c.proxy.ServeHTTP(w, r.WithContext(ctx))
}

func (c *Controller) reverseProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: c.rewrite, Transport: c.transport, ModifyResponse: c.modify, ErrorHandler: c.failed,
		BufferPool: &buffers{sync.Pool{New: func() any { return new([bufferSize]byte) }}},
		ErrorLog:   slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
	}
}

// rewrite prepares the request for the backend.
func (c *Controller) rewrite(p *httputil.ProxyRequest) {
	q := requestOf(p.In.Context())
	out := p.Out
	out.URL.Scheme, out.URL.Host = "http", "backend" // package upstream knows better
	out.URL.RawQuery = p.In.URL.RawQuery             // it is the backend's to judge
	if q.rule.Settings.RewriteTarget != "" {
		to, query, _ := strings.Cut(q.rule.Rewrite(q.path), "?")
		out.URL.Path, out.URL.RawPath = to, ""
		if query != "" {
			out.URL.RawQuery = strings.TrimSuffix(query+"&"+out.URL.RawQuery, "&")
		}
	}
	if q.rule.Settings.Host != "" {
		out.Host = q.rule.Settings.Host
	}
	scheme, port := "http", c.servers[0].port()
	if q.secure {
		scheme, port = "https", c.servers[1].port()
	}
	h := out.Header
	for name, value := range map[string]string{
		"X-Real-Ip": q.client.String(), "X-Forwarded-For": q.client.String(), "X-Forwarded-Host": p.In.Host, "X-Forwarded-Proto": scheme,
		"X-Forwarded-Scheme": scheme, "X-Scheme": scheme, "X-Forwarded-Port": strconv.Itoa(port)} {
		h.Set(name, value)
	}
	if h.Get("X-Request-Id") == "" {
		var id [16]byte
		_, _ = rand.Read(id[:]) // it never fails
		h.Set("X-Request-Id", hex.EncodeToString(id[:]))
	}
}

// modify adds to the backend's answer.
func (c *Controller) modify(answer *http.Response) error {
	ctx := answer.Request.Context()
	q, call := requestOf(ctx), upstream.From(ctx)
	s := q.rule.Settings
	if s.CORS != nil {
		allowOrigin(answer.Header, s.CORS, answer.Request.Header.Get("Origin"))
	}
	if s.Affinity == nil || call.Chosen.ID == call.Sticky {
		return nil
	}
	cookie := &http.Cookie{Name: s.Affinity.Name, Value: call.Chosen.ID, Path: s.Affinity.Path, MaxAge: s.Affinity.MaxAge, HttpOnly: true, Secure: s.Affinity.Secure || q.secure}
	if cookie.Path == "" {
		cookie.Path = "/"
		if !s.UseRegex && q.rule.Path != "" {
			cookie.Path = q.rule.Path
		}
	}
	switch strings.ToLower(s.Affinity.SameSite) {
	case "lax":
		cookie.SameSite = http.SameSiteLaxMode
	case "strict":
		cookie.SameSite = http.SameSiteStrictMode
	case "none":
		cookie.SameSite = http.SameSiteNoneMode
	}
	answer.Header.Add("Set-Cookie", cookie.String())
	return nil
}

// failed answers where the backend did not.
func (c *Controller) failed(w http.ResponseWriter, r *http.Request, err error) {
	var large *http.MaxBytesError
	var network net.Error
	status := http.StatusBadGateway
	switch {
	case errors.As(err, &large):
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, upstream.ErrNoEndpoints):
		status = http.StatusServiceUnavailable
	case errors.Is(err, upstream.ErrTimeout), errors.As(err, &network) && network.Timeout():
		status = http.StatusGatewayTimeout
	case r.Context().Err() != nil:
		status = statusClientClosed
	}
	if status != statusClientClosed {
		q := requestOf(r.Context())
		c.log.Debug("a request did not reach its backend", "ingress", q.rule.Ingress, "service", q.rule.Backend.Service, "status", status, "err", err)
	}
	answer(w, status, strconv.Itoa(status)+" "+http.StatusText(status))
}

const bufferSize = 32 << 10

// buffers lends the buffers that bodies are copied through.
type buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte { return b.pool.Get().(*[bufferSize]byte)[:] }

// Put implements httputil.BufferPool.
func (b *buffers) Put(p []byte) { b.pool.Put((*[bufferSize]byte)(p)) }

// recorder remembers the status that was answered.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController find what the writer can do.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
