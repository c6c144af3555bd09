// SPDX-License-Identifier: Apache-2.0

package aggregate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"

	"kaji/internal/apiserver/request"
)

// remote is a version that another server has. But for what is known of the
// server it never changes: another spec makes another remote.
type remote struct {
	name string
	uid  types.UID
	gv   schema.GroupVersion
	spec apiregistrationv1.APIServiceSpec
	port int32

	resolve func() (*url.URL, error)
	// transport sends requests; upgrades take one connection each in HTTP/1.1,
	// by streams. broken is why there is neither.
	transport, streams *http.Transport
	broken             error
	errors             *log.Logger // of connections that break: seldom of interest

	knowledge atomic.Pointer[knowledge] // written by look alone
}

// knowledge is what is known of a server. It is never changed, but replaced.
type knowledge struct {
	available bool
	document  apidiscoveryv2.APIVersionDiscovery
	index     map[string]string // OpenAPI v3: where each document is
	v2        schemaV2

	discoveryTag, indexTag string    // of what was fetched, as the server calls it
	learned                time.Time // zero: something is to be fetched anew
}

func (r *remote) known() *knowledge { return r.knowledge.Load() }

// newRemote returns the server that an APIService names, as available as it was
// found last.
func (a *Aggregator) newRemote(s *apiregistrationv1.APIService) *remote {
	r := &remote{name: s.Name, uid: s.UID, gv: versionOf(s), spec: *s.Spec.DeepCopy(), port: 443}
	if p := r.spec.Service.Port; p != nil {
		r.port = *p
	}
	service := r.spec.Service
	r.resolve = func() (*url.URL, error) {
		return a.cfg.Services.ResolveEndpoint(service.Namespace, service.Name, r.port)
	}
	r.errors = slog.NewLogLogger(a.log.Handler(), slog.LevelDebug)
	r.transport, r.broken = a.newTransport(s)
	if r.broken == nil {
		r.streams, _ = a.newTransport(s) // as well as the first
		r.streams.ForceAttemptHTTP2, r.streams.DisableKeepAlives = false, true
		r.streams.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	r.knowledge.Store(&knowledge{
		available: helper.IsAPIServiceConditionTrue(s, apiregistrationv1.Available), document: r.stale(),
	})
	return r
}

// stale is the version's discovery while its server does not tell.
func (r *remote) stale() apidiscoveryv2.APIVersionDiscovery {
	return apidiscoveryv2.APIVersionDiscovery{Version: r.gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessStale}
}

// close lets go of the connections that nobody uses; requests under way end by
// themselves.
func (r *remote) close() {
	if r.transport != nil {
		r.transport.CloseIdleConnections()
	}
}

// newTransport verifies the server by the APIService's word, and shows the front
// proxy's certificate.
func (a *Aggregator) newTransport(s *apiregistrationv1.APIService) (*http.Transport, error) {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: s.Spec.Service.Name + "." + s.Spec.Service.Namespace + ".svc",
		// The APIService's author decides; upstream offers this, too.
		InsecureSkipVerify: s.Spec.InsecureSkipTLSVerify,
	}
	if len(s.Spec.CABundle) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(s.Spec.CABundle) {
			return nil, errors.New("the CA bundle holds no certificate")
		}
	}
	if a.cfg.Certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return a.cfg.Certificate(), nil }
	}
	return &http.Transport{
		TLSClientConfig: config, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: 25, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
		// A server whose node lost its cable says nothing any more.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}, nil
}

// Headers that tell another server who asks.
const (
	headerUser  = "X-Remote-User"
	headerUID   = "X-Remote-Uid"
	headerGroup = "X-Remote-Group"
	headerExtra = "X-Remote-Extra-"
)

// setUser replaces whatever a client said of itself.
func setUser(h http.Header, u user.Info) {
	for name := range h {
		if name == headerUser || name == headerUID || name == headerGroup || strings.HasPrefix(name, headerExtra) {
			delete(h, name)
		}
	}
	h.Del("Authorization")
	h.Set(headerUser, u.GetName())
	if uid := u.GetUID(); uid != "" {
		h.Set(headerUID, uid)
	}
	for _, group := range u.GetGroups() {
		h.Add(headerGroup, group)
	}
	for key, values := range u.GetExtra() {
		for _, value := range values {
			h.Add(headerExtra+url.PathEscape(key), value)
		}
	}
}

// discoveryTimeout bounds requests for discovery, which every client makes.
const discoveryTimeout = 5 * time.Second

// ServeHTTP sends one request to the server.
func (r *remote) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if !r.known().available {
		http.Error(w, "service unavailable", http.StatusServiceUnavailable)
		return
	}
	if r.broken != nil {
		http.Error(w, r.broken.Error(), http.StatusInternalServerError)
		return
	}
	base, err := r.resolve()
	if err != nil {
		http.Error(w, "service unavailable", http.StatusServiceUnavailable)
		return
	}
	if strings.Count(strings.Trim(req.URL.Path, "/"), "/") == 2 {
		ctx, cancel := context.WithTimeout(req.Context(), discoveryTimeout)
		defer cancel()
		req = req.WithContext(ctx)
	}
	r.forwarder(base, request.User(req.Context()), req.Header.Get("Upgrade") != "").ServeHTTP(w, req)
}

// forwarder returns what sends the request of a user to the server at base.
func (r *remote) forwarder(base *url.URL, who user.Info, upgrade bool) *httputil.ReverseProxy {
	transport := r.transport
	if upgrade {
		transport = r.streams
	}
	return &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = base.Scheme, base.Host, base.Host
			setForwarded(p, base.Host)
			setUser(p.Out.Header, who)
		},
		Transport:      transport,
		ErrorLog:       r.errors,
		FlushInterval:  -1, // watches
		ModifyResponse: refuseRedirect,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "error trying to reach service: "+err.Error(), http.StatusServiceUnavailable)
		},
	}
}

// setForwarded tells the server by which ways the request came, as upstream does:
// what proxies before this one said stays.
func setForwarded(p *httputil.ProxyRequest, host string) {
	for _, name := range []string{"Forwarded", "X-Forwarded-For"} {
		if said := p.In.Header[name]; said != nil {
			p.Out.Header[name] = said
		}
	}
	p.SetXForwarded()
	p.Out.Header.Set("X-Forwarded-Host", host)
	p.Out.Header.Set("X-Forwarded-Uri", p.In.URL.Path)
}

// refuseRedirect keeps a server from sending clients, with their credentials,
// elsewhere.
func refuseRedirect(answer *http.Response) error {
	if answer.StatusCode < 300 || answer.StatusCode > 399 || answer.Header.Get("Location") == "" {
		return nil
	}
	answer.Body.Close()
	const text = "the backend attempted to redirect this request, which is not permitted"
	answer.StatusCode, answer.Status = http.StatusBadGateway, ""
	answer.Header, answer.ContentLength = http.Header{}, int64(len(text))
	answer.Body = io.NopCloser(strings.NewReader(text))
	return nil
}
