// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"kaji/internal/ingress/annotation"
	"kaji/internal/ingress/backend"
	"kaji/internal/ingress/forward"
	"kaji/internal/ingress/upstream"
)

// askTimeout is how long the server that is asked may take.
const askTimeout = time.Minute

// hop are the headers of a request that are not passed on to who is asked.
var hop = []string{"Connection", "Content-Length", "Transfer-Encoding", "Upgrade", "Te", "Trailer", "Keep-Alive", "Proxy-Connection", "Expect"}

// newAsker returns the client that asks. Services of the cluster are known by
// their names in it; other names are the resolver's.
func (c *Controller) newAsker() *http.Client {
	dial := c.cfg.Dial
	if dial == nil {
		dial = upstream.Guarded
	}
	return &http.Client{
		Timeout:       askTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{MaxIdleConnsPerHost: 32, IdleConnTimeout: 50 * time.Second, DisableCompression: true,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				if ref := serviceOf(address); ref != nil {
					if to := c.backends.Pool(*ref).Next(); to != "" {
						address = to
					}
				}
				return dial(ctx, network, address)
			}},
	}
}

// serviceOf reads "name.namespace.svc…:port".
func serviceOf(address string) *backend.Ref {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil
	}
	number, err := strconv.ParseUint(port, 10, 16)
	labels := strings.SplitN(host, ".", 4)
	if err != nil || len(labels) < 3 || labels[2] != "svc" {
		return nil
	}
	return &backend.Ref{Namespace: labels[1], Service: labels[0], Port: networkingv1.ServiceBackendPort{Number: int32(number)}}
}

// asked returns the Service that an external server is, or nil.
func asked(e *annotation.External) *backend.Ref {
	u, err := url.Parse(annotation.Variables{Scheme: "http", Host: "h", URI: "/"}.Expand(e.URL))
	if err != nil {
		return nil
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return serviceOf(net.JoinHostPort(u.Hostname(), port))
}

// permitted asks the external server whether a request may go on; otherwise it
// has been answered.
func (c *Controller) permitted(w http.ResponseWriter, r *http.Request, q *request) bool {
	e := q.rule.Settings.External
	v := annotation.Variables{Scheme: "http", Host: r.Host, URI: r.URL.RequestURI(), Method: r.Method}
	if q.secure {
		v.Scheme = "https"
	}
	ask, err := http.NewRequestWithContext(r.Context(), e.Method, v.Expand(e.URL), nil)
	if err != nil {
		forward.Answer(w, http.StatusInternalServerError, "")
		return false
	}
	ask.Header = r.Header.Clone()
	for _, name := range hop {
		ask.Header.Del(name)
	}
	for name, value := range map[string]string{"X-Original-Url": v.Scheme + "://" + v.Host + v.URI, "X-Original-Method": r.Method, "X-Real-Ip": q.client.String(),
		"X-Forwarded-For": q.client.String(), "X-Auth-Request-Redirect": v.URI, "X-Forwarded-Proto": v.Scheme, "X-Forwarded-Host": v.Host} {
		ask.Header.Set(name, value)
	}
	answer, err := c.asker.Do(ask)
	if err != nil {
		c.log.Debug("the server for authentication cannot be asked", "ingress", q.rule.Ingress, "err", err)
		forward.Answer(w, http.StatusInternalServerError, "")
		return false
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, 64<<10) // so that the connection can be used again
	for _, cookie := range answer.Header.Values("Set-Cookie") {
		w.Header().Add("Set-Cookie", cookie)
	}
	if answer.StatusCode/100 == 2 {
		forward.Disown(r.Header, func(name string) bool { return slices.Contains(e.Headers, name) })
		for _, name := range e.Headers {
			r.Header.Del(name)
			if values := answer.Header.Values(name); len(values) > 0 {
				r.Header[name] = slices.Clone(values)
			}
		}
		return true
	}
	refuse(w, answer, e, v)
	return false
}

// refuse answers who is not let in.
func refuse(w http.ResponseWriter, answer *http.Response, e *annotation.External, v annotation.Variables) {
	switch {
	case answer.StatusCode == http.StatusUnauthorized && e.Signin != "":
		to := v.Expand(e.Signin)
		if u, err := url.Parse(to); err == nil && !u.Query().Has(e.Parameter) {
			mark := "?"
			if u.RawQuery != "" {
				mark = "&"
			}
			to += mark + e.Parameter + "=" + url.QueryEscape(v.Scheme+"://"+v.Host+v.URI)
		}
		send(w, http.StatusFound, to)
	case answer.StatusCode == http.StatusUnauthorized, answer.StatusCode == http.StatusForbidden:
		if challenge := answer.Header.Get("WWW-Authenticate"); challenge != "" {
			w.Header().Set("WWW-Authenticate", challenge)
		}
		forward.Answer(w, answer.StatusCode, "")
	default:
		forward.Answer(w, http.StatusInternalServerError, "")
	}
}
