// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/ingress/annotation"
	"kaji/internal/ingress/forward"
	"kaji/internal/ingress/gate"
	"kaji/internal/ingress/route"
)

// admit says whether a request goes on to its backend; it has answered it
// otherwise. Redirects come first: no password is asked for in the clear.
func (c *Controller) admit(w http.ResponseWriter, r *http.Request, q *request) bool {
	s := q.rule.Settings
	switch {
	case s.Refused != "":
		forward.Answer(w, http.StatusServiceUnavailable, "this Ingress cannot be served as it asks; its Events say why")
	case c.redirected(w, r, q):
	case !allowed(s, q.client):
		forward.Answer(w, http.StatusForbidden, "403 Forbidden")
	case c.tooMany(s, q):
		forward.Answer(w, http.StatusServiceUnavailable, "503 Service Temporarily Unavailable")
	case s.CORS != nil && r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "":
		gate.Preflight(w, s.CORS, r.Header)
	case s.Auth != nil && !c.authenticated(w, r, q.rule):
	case s.External != nil && !c.permitted(w, r, q):
	default:
		return true
	}
	return false
}

// tooMany counts a request; q.end says when it has ended.
func (c *Controller) tooMany(s *annotation.Settings, q *request) bool {
	if s.Rate == 0 && s.Connections == 0 || slices.ContainsFunc(s.Unlimited, func(p netip.Prefix) bool { return p.Contains(q.client) }) {
		return false
	}
	if s.Rate > 0 && !c.limiter.Allow(q.rule.UID, q.client, s.Rate, s.Burst) {
		return true
	}
	if s.Connections > 0 {
		q.end = c.flights.Begin(q.rule.UID, q.client, s.Connections)
		return q.end == nil
	}
	return false
}

func (c *Controller) redirected(w http.ResponseWriter, r *http.Request, q *request) bool {
	s := q.rule.Settings
	if !q.secure && (s.ForceSSLRedirect || s.SSLRedirect && c.hasTLS(r.Host)) {
		host := route.Host(r.Host)
		if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
			host = "[" + host + "]"
		}
		if port := c.cfg.HTTPSPort; port != 443 && port != 0 {
			host += ":" + strconv.Itoa(int(port))
		}
		send(w, http.StatusPermanentRedirect, "https://"+host+r.URL.RequestURI())
		return true
	}
	if s.Redirect != "" {
		send(w, s.RedirectCode, s.Redirect)
		return true
	}
	if s.AppRoot != "" && q.path == "/" {
		send(w, http.StatusFound, s.AppRoot)
		return true
	}
	return false
}

// send answers with a redirect. The address is taken as it is: http.Redirect
// would clean it.
func send(w http.ResponseWriter, code int, to string) {
	w.Header().Set("Location", to)
	forward.Answer(w, code, strconv.Itoa(code)+" "+http.StatusText(code))
}

// hasTLS says whether an Ingress has a TLS section for the host.
func (c *Controller) hasTLS(host string) bool {
	_, ok := c.current.Load().table.Secret(route.Host(host))
	return ok
}

func allowed(s *annotation.Settings, client netip.Addr) bool {
	in := func(p netip.Prefix) bool { return p.Contains(client) }
	return !slices.ContainsFunc(s.Deny, in) && (len(s.Allow) == 0 || slices.ContainsFunc(s.Allow, in))
}

// authenticated asks for a name and a password. While the Secret is missing
// nobody is let in.
func (c *Controller) authenticated(w http.ResponseWriter, r *http.Request, rule *route.Rule) bool {
	auth := rule.Settings.Auth
	e := c.secrets.Get(types.NamespacedName{Namespace: rule.Ingress.Namespace, Name: auth.Secret})
	if e == nil || !e.Exists || !auth.Map && e.File == nil {
		forward.Answer(w, http.StatusServiceUnavailable, "503 Service Temporarily Unavailable")
		return false
	}
	list := e.File
	if auth.Map {
		list = e.Map
	}
	if name, password, ok := r.BasicAuth(); ok && list.Check(name, password) {
		return true
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="`+auth.Realm+`"`)
	forward.Answer(w, http.StatusUnauthorized, "401 Authorization Required")
	return false
}
