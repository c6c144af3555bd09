// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"kaji/internal/ingress/forward"
	"kaji/internal/ingress/gate"
	"kaji/internal/ingress/gateway/plan"
	"kaji/internal/ingress/route"
	"kaji/internal/ingress/upstream"
)

// The protocols a Service may name for its backends.
const (
	appH2C   = "kubernetes.io/h2c"
	appHTTPS = "https"
	appWSS   = "kubernetes.io/wss"
)

// connectTimeout bounds a connection to a backend.
const connectTimeout = 5 * time.Second

// call is one request on its way.
type call struct {
	g       *Controller
	rule    *plan.Rule
	backend *plan.Backend
	path    string
	port    uint16
	secure  bool
	host    string
}

// Serve answers a request, if a listener's route is for it; false says that none is.
func (g *Controller) Serve(w http.ResponseWriter, r *http.Request, port uint16, secure bool) bool {
	now := g.current.Load()
	p := now.plan.Ports[port]
	if p == nil {
		return false
	}
	host, path := route.Host(r.Host), route.Clean(r.URL.Path)
	only := now.only(func() netip.Addr { return g.c.Asked(r.Context()) })
	listeners := p.MatchOf(host, only)
	if len(listeners) > 0 && secure && r.TLS != nil && r.TLS.ServerName != "" && !shares(p.MatchOf(route.Host(r.TLS.ServerName), only), listeners) {
		// A connection made for one listener must not reach another's routes.
		forward.Answer(w, http.StatusMisdirectedRequest, "")
		return true
	}
	for _, l := range listeners {
		rule := l.Match(host, path, r)
		if rule == nil {
			continue
		}
		c := &call{g: g, rule: rule, path: path, port: port, secure: secure, host: host}
		c.serve(w, r, now)
		return true
	}
	if only != nil { // the address is not the Ingresses'
		forward.Answer(w, http.StatusNotFound, "")
		return true
	}
	return false
}

// only is the Gateway whose own address a client asked for; nil where it is an
// address of all.
func (s *snapshot) only(asked func() netip.Addr) *types.NamespacedName {
	if len(s.own) == 0 {
		return nil
	}
	if one, ok := s.own[asked()]; ok {
		return &one
	}
	return nil
}

func shares(a, b []*plan.Listener) bool {
	for _, l := range a {
		for _, other := range b {
			if l == other {
				return true
			}
		}
	}
	return false
}

func (c *call) serve(w http.ResponseWriter, r *http.Request, now *snapshot) {
	a := c.rule.Action
	if a.CORS != nil && r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
		gate.Preflight(w, a.CORS, r.Header)
		return
	}
	if a.Redirect != nil {
		c.redirect(w, r)
		return
	}
	if c.backend = choose(a.Backends); c.backend == nil || c.backend.Ref == nil {
		forward.Answer(w, http.StatusInternalServerError, "")
		return
	}
	if a.Timeout > 0 {
		ctx, stop := context.WithTimeout(r.Context(), a.Timeout)
		defer stop()
		r = r.WithContext(ctx)
	}
	if a.BackendTimeout > 0 {
		ctx, stop := context.WithTimeout(r.Context(), a.BackendTimeout)
		defer stop()
		r = r.WithContext(ctx)
	}
	if len(a.Mirrors) > 0 {
		r = c.mirror(r, now)
	}
	pool := now.pools[*c.backend.Ref]
	x := &forward.Exchange{Secure: c.secure, Port: c.port, Client: forward.ClientOf(r), Rewrite: c.rewrite}
	protocol := pool.Protocol()
	x.Call = upstream.Call{Pool: pool, Connect: connectTimeout, HTTP2: a.GRPC || protocol == appH2C, TLS: protocol == appHTTPS || protocol == appWSS}
	if a.CORS != nil || !a.Response.Empty() || !c.backend.Response.Empty() {
		x.Modify = c.modify
	}
	c.g.c.Proxy.Serve(w, r, x)
}

// choose takes a backend by chance and weight, or nil.
func choose(all []plan.Backend) *plan.Backend {
	total := 0
	for i := range all {
		total += all[i].Weight
	}
	if total == 0 {
		return nil
	}
	at := 0
	if len(all) > 1 {
		at = rand.IntN(total)
	}
	for i := range all {
		if at -= all[i].Weight; at < 0 {
			return &all[i]
		}
	}
	return nil
}

func (c *call) rewrite(out *http.Request) {
	for _, w := range []*gatewayv1.HTTPURLRewriteFilter{c.rule.Action.Rewrite, c.backend.Rewrite} {
		if w == nil {
			continue
		}
		if w.Path != nil {
			out.URL.Path, out.URL.RawPath = c.rule.Replace(w.Path, c.path), ""
		}
		if w.Hostname != nil {
			out.Host = string(*w.Hostname)
		}
	}
	for _, h := range []*plan.Headers{&c.rule.Action.Request, &c.backend.Request} {
		h.Apply(out.Header)
	}
	if host := out.Header.Get("Host"); host != "" {
		out.Host = host
		out.Header.Del("Host")
	}
}

func (c *call) modify(answer *http.Response) {
	a := c.rule.Action
	if a.CORS != nil {
		gate.AllowOrigin(answer.Header, a.CORS, answer.Request.Header.Get("Origin"))
	}
	c.backend.Response.Apply(answer.Header)
	a.Response.Apply(answer.Header)
}

// redirect sends the client elsewhere. What the filter does not name is as the
// client asked.
func (c *call) redirect(w http.ResponseWriter, r *http.Request) {
	f := c.rule.Action.Redirect
	scheme, host := "http", c.host
	if c.secure {
		scheme = "https"
	}
	port := int(c.port)
	if f.Scheme != nil && *f.Scheme != scheme {
		scheme = *f.Scheme
		port = map[string]int{"http": 80, "https": 443}[scheme]
	}
	if f.Port != nil {
		port = int(*f.Port)
	}
	if f.Hostname != nil && *f.Hostname != "" {
		host = string(*f.Hostname)
	}
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		host = "[" + host + "]"
	}
	if port != 0 && !(scheme == "http" && port == 80) && !(scheme == "https" && port == 443) {
		host += ":" + strconv.Itoa(port)
	}
	to := *r.URL
	to.Scheme, to.Host, to.User = scheme, host, nil
	if f.Path != nil {
		to.Path, to.RawPath = c.rule.Replace(f.Path, c.path), ""
	}
	code := http.StatusFound
	if f.StatusCode != nil {
		code = *f.StatusCode
	}
	c.rule.Action.Response.Apply(w.Header())
	w.Header().Set("Location", to.String())
	w.WriteHeader(code)
}

// Divert takes connections that are for a listener of TLSRoutes, or nil. Where no route is for the name they are closed.
func (g *Controller) Divert(port uint16, name string, conn net.Conn) func(ctx context.Context, conn net.Conn) {
	now := g.current.Load()
	p := now.plan.Ports[port]
	if p == nil {
		return nil
	}
	name = route.Host(name)
	only := now.only(func() netip.Addr { return g.c.Destination(conn) })
	found := p.MatchOf(name, only)
	if only != nil && len(found) == 0 { // nobody else answers at the Gateway's address
		return func(context.Context, net.Conn) {}
	}
	for _, l := range found {
		if !l.Streams {
			continue
		}
		return func(ctx context.Context, conn net.Conn) {
			if !l.Passthrough {
				conn = tls.Server(conn, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
					return g.Certificate(port, hello, name), nil
				}})
			}
			s := l.Stream(name)
			if s == nil {
				return
			}
			b := choose(s.Backends)
			if b == nil || b.Ref == nil {
				return
			}
			if err := g.c.Proxy.Pipe(ctx, conn, now.pools[*b.Ref], connectTimeout); err != nil {
				g.c.Logger.Debug("a connection did not reach its backend", "gateway", l.Gateway, "err", err)
			}
		}
	}
	return nil
}
