// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"kaji/internal/ingress/annotation"
	"kaji/internal/ingress/forward"
	"kaji/internal/ingress/gate"
	"kaji/internal/ingress/route"
	"kaji/internal/ingress/upstream"
)

// front answers the requests of one port.
type front struct {
	c      *Controller
	port   uint16
	secure bool
}

func (c *Controller) handler(port uint16, secure bool) http.Handler { return &front{c, port, secure} }

// request is what is known of a request on its way.
type request struct {
	rule   *route.Rule
	port   uint16
	secure bool
	client netip.Addr
	path   string
	// end, unless nil, is called when the request has ended.
	end func()
}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := f.c.current.Load()
	q := &request{port: f.port, secure: f.secure, client: forward.ClientOf(r), path: route.Clean(r.URL.Path)}
	if f.port == f.c.cfg.HTTPPort || f.port == f.c.cfg.HTTPSPort {
		q.rule = now.table.Match(route.Host(r.Host), q.path)
	}
	seen := &forward.Recorder{ResponseWriter: w, Status: http.StatusOK}
	started := time.Now()
	defer func() {
		f.c.metrics.served(q.rule, seen.Status, time.Since(started))
		if q.end != nil {
			q.end()
		}
	}()
	if strings.Contains(r.RequestURI, " ") { // which HTTP/2 lets pass, and a backend of HTTP/1.1 would misread
		forward.Answer(seen, http.StatusBadRequest, "")
		q.rule = nil
		return
	}
	if f.c.gateway.Serve(seen, r, f.port, f.secure) {
		q.rule = nil
		return
	}
	if q.rule == nil {
		forward.Answer(seen, http.StatusNotFound, "default backend - 404")
		return
	}
	q.rule = choose(now.table, q.rule, r)
	if f.c.admit(seen, r, q) {
		f.c.forward(seen, r, q, now)
	}
}

func (c *Controller) forward(w http.ResponseWriter, r *http.Request, q *request, now *snapshot) {
	if q.rule.Backend == nil {
		forward.Answer(w, http.StatusServiceUnavailable, "the backend is not a Service")
		return
	}
	s := q.rule.Settings
	pool := now.pools[*q.rule.Backend]
	if s.Substitute != "" && pool.Empty() {
		if ref := c.substitute(q.rule); ref != nil && now.pools[*ref] != nil {
			pool = now.pools[*ref]
		}
	}
	x := &forward.Exchange{Secure: q.secure, Port: q.port, Client: q.client, BodySize: s.BodySize,
		Rewrite: func(out *http.Request) { rewrite(out, q) }}
	x.Call = upstream.Call{Pool: pool, Connect: s.ConnectTimeout, SendTimeout: s.SendTimeout, ReadTimeout: s.ReadTimeout,
		TLS:   s.Protocol == annotation.HTTPS || s.Protocol == annotation.GRPCS,
		HTTP2: s.Protocol == annotation.GRPC || s.Protocol == annotation.GRPCS}
	if s.Affinity != nil {
		if cookie, err := r.Cookie(s.Affinity.Name); err == nil {
			x.Sticky = cookie.Value
		}
	}
	if s.CORS != nil || s.Affinity != nil {
		x.Modify = func(answer *http.Response) { modify(answer, q, &x.Call) }
	}
	c.proxy.Serve(w, r, x)
}

// rewrite prepares the request for the backend.
func rewrite(out *http.Request, q *request) {
	s := q.rule.Settings
	if s.RewriteTarget != "" {
		to, query, _ := strings.Cut(q.rule.Rewrite(q.path), "?")
		out.URL.Path, out.URL.RawPath = to, ""
		if query != "" {
			out.URL.RawQuery = strings.TrimSuffix(query+"&"+out.URL.RawQuery, "&")
		}
	}
	if s.Host != "" {
		out.Host = s.Host
	}
	if s.Prefix != "" {
		out.Header.Set("X-Forwarded-Prefix", s.Prefix)
	}
}

// modify adds to the backend's answer.
func modify(answer *http.Response, q *request, call *upstream.Call) {
	s := q.rule.Settings
	if s.CORS != nil {
		gate.AllowOrigin(answer.Header, s.CORS, answer.Request.Header.Get("Origin"))
	}
	if s.Affinity != nil && call.Chosen.ID != call.Sticky {
		answer.Header.Add("Set-Cookie", q.cookie(call.Chosen.ID).String())
	}
}

// cookie keeps a client at the endpoint.
func (q *request) cookie(id string) *http.Cookie {
	a := q.rule.Settings.Affinity
	cookie := &http.Cookie{Name: a.Name, Value: id, Path: a.Path, MaxAge: a.MaxAge, HttpOnly: true, Secure: a.Secure || q.secure}
	if cookie.Path == "" {
		cookie.Path = "/"
		if !q.rule.Settings.UseRegex && q.rule.Path != "" {
			cookie.Path = q.rule.Path
		}
	}
	switch strings.ToLower(a.SameSite) {
	case "lax":
		cookie.SameSite = http.SameSiteLaxMode
	case "strict":
		cookie.SameSite = http.SameSiteStrictMode
	case "none":
		cookie.SameSite = http.SameSiteNoneMode
	}
	return cookie
}

// divert takes connections for hosts whose backends do TLS themselves.
func (c *Controller) divert(port uint16, name string, conn net.Conn) func(context.Context, net.Conn) {
	if take := c.gateway.Divert(port, name, conn); take != nil {
		return take
	}
	if port != c.cfg.HTTPSPort {
		return nil
	}
	now := c.current.Load()
	rule := now.table.Passthrough(route.Host(name))
	if rule == nil {
		return nil
	}
	pool := now.pools[*rule.Backend]
	return func(ctx context.Context, conn net.Conn) {
		if err := c.proxy.Pipe(ctx, conn, pool, rule.Settings.ConnectTimeout); err != nil {
			c.log.Debug("a connection did not reach its backend", "ingress", rule.Ingress, "err", err)
		}
	}
}
