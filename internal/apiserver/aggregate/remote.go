// SPDX-License-Identifier: Apache-2.0

package aggregate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"kaji/internal/apiserver/request"
	"kaji/internal/client"
)

// Limits of asking another server for its discovery.
const (
	checkTimeout = 5 * time.Second
	maxDocument  = 4 << 20
)

// remote is a version that another server has. It is replaced, not changed.
type remote struct {
	gv        schema.GroupVersion
	spec      apiregistrationv1.APIServiceSpec
	available bool
	document  apidiscoveryv2.APIVersionDiscovery

	resolve   func() (*url.URL, error)
	transport http.RoundTripper
}

// syncRemote looks at all other servers and keeps the conditions of their
// APIServices.
func (a *Aggregator) syncRemote(ctx context.Context) {
	at, err := a.cfg.Cache.Snapshot(ctx, a.cfg.Kind)
	if err != nil {
		return
	}
	next := map[schema.GroupVersion]*remote{}
	for e := range at.All("", "") {
		s := e.Object.(*apiregistrationv1.APIService)
		if s.Spec.Service == nil {
			continue
		}
		gv := schema.GroupVersion{Group: s.Spec.Group, Version: s.Spec.Version}
		a.mu.RLock()
		old := a.remotes[gv]
		a.mu.RUnlock()
		r, condition := a.look(ctx, s, old)
		next[gv] = r
		a.writeCondition(ctx, s, condition)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !sameDiscovery(a.remotes, next) {
		a.generation++
	}
	a.remotes = next
}

func sameDiscovery(a, b map[schema.GroupVersion]*remote) bool {
	if len(a) != len(b) {
		return false
	}
	for gv, r := range a {
		o := b[gv]
		if o == nil || r.spec.GroupPriorityMinimum != o.spec.GroupPriorityMinimum || r.spec.VersionPriority != o.spec.VersionPriority ||
			!equality.Semantic.DeepEqual(r.document, o.document) {
			return false
		}
	}
	return true
}

// look asks a server for its discovery. What it said last stays, as stale,
// when it does not answer.
func (a *Aggregator) look(ctx context.Context, s *apiregistrationv1.APIService, old *remote) (*remote, apiregistrationv1.APIServiceCondition) {
	service := s.Spec.Service
	port := int32(443)
	if service.Port != nil {
		port = *service.Port
	}
	r := &remote{
		gv: schema.GroupVersion{Group: s.Spec.Group, Version: s.Spec.Version}, spec: *s.Spec.DeepCopy(),
		resolve: func() (*url.URL, error) {
			return a.cfg.Services.ResolveEndpoint(service.Namespace, service.Name, port)
		},
	}
	if old != nil && old.spec.String() == s.Spec.String() {
		r.transport, r.document = old.transport, old.document
	}
	condition := apiregistrationv1.APIServiceCondition{
		Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionFalse,
	}
	fail := func(reason, format string, args ...any) (*remote, apiregistrationv1.APIServiceCondition) {
		condition.Reason, condition.Message = reason, fmt.Sprintf(format, args...)
		r.document.Freshness = apidiscoveryv2.DiscoveryFreshnessStale
		r.document.Version = r.gv.Version
		return r, condition
	}
	if r.transport == nil {
		transport, err := a.transport(s)
		if err != nil {
			return fail("FailedDiscoveryCheck", "%v", err)
		}
		r.transport = transport
	}
	base, err := r.resolve()
	switch {
	case apierrors.IsNotFound(err):
		return fail("ServiceNotFound", "service/%s in %q is not present", service.Name, service.Namespace)
	case err != nil:
		return fail("ServiceAccessError", "service/%s in %q cannot be checked due to: %v", service.Name, service.Namespace, err)
	}
	target := base.JoinPath("apis", r.gv.Group, r.gv.Version)
	document, err := r.fetch(ctx, target.String())
	if err != nil {
		return fail("FailedDiscoveryCheck", "failing or missing response from %v: %v", target, err)
	}
	r.document, r.available = document, true
	condition.Status, condition.Reason, condition.Message = apiregistrationv1.ConditionTrue, "Passed", "all checks passed"
	return r, condition
}

// transport verifies the server by the APIService's word, and shows the front
// proxy's certificate.
func (a *Aggregator) transport(s *apiregistrationv1.APIService) (http.RoundTripper, error) {
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
	}, nil
}

// fetch reads the resources of the version.
func (r *remote) fetch(ctx context.Context, target string) (apidiscoveryv2.APIVersionDiscovery, error) {
	out := apidiscoveryv2.APIVersionDiscovery{Version: r.gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return out, err
	}
	req.Header.Set("Accept", "application/json")
	setUser(req.Header, &user.DefaultInfo{Name: "system:kube-aggregator", Groups: []string{user.SystemPrivilegedGroup}})
	answer, err := r.transport.RoundTrip(req)
	if err != nil {
		return out, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return out, fmt.Errorf("bad status from %s: %d", target, answer.StatusCode)
	}
	var list metav1.APIResourceList
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxDocument)).Decode(&list); err != nil {
		return out, err
	}
	out.Resources = resources(list.APIResources)
	return out, nil
}

// resources turns a plain list into the aggregated form.
func resources(list []metav1.APIResource) []apidiscoveryv2.APIResourceDiscovery {
	var out []apidiscoveryv2.APIResourceDiscovery
	at := map[string]int{}
	for _, r := range list {
		if strings.Contains(r.Name, "/") {
			continue
		}
		scope := apidiscoveryv2.ScopeCluster
		if r.Namespaced {
			scope = apidiscoveryv2.ScopeNamespace
		}
		at[r.Name] = len(out)
		out = append(out, apidiscoveryv2.APIResourceDiscovery{
			Resource: r.Name, ResponseKind: &metav1.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}, Scope: scope,
			SingularResource: r.SingularName, Verbs: r.Verbs, ShortNames: r.ShortNames, Categories: r.Categories,
		})
	}
	for _, r := range list {
		main, sub, found := strings.Cut(r.Name, "/")
		if i, known := at[main]; found && known {
			out[i].Subresources = append(out[i].Subresources, apidiscoveryv2.APISubresourceDiscovery{
				Subresource: sub, ResponseKind: &metav1.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}, Verbs: r.Verbs,
			})
		}
	}
	return out
}

// writeCondition stores the condition of an APIService when it changed.
func (a *Aggregator) writeCondition(ctx context.Context, s *apiregistrationv1.APIService, c apiregistrationv1.APIServiceCondition) {
	c.LastTransitionTime = metav1.Now()
	s = s.DeepCopy()
	found := false
	for i := range s.Status.Conditions {
		old := &s.Status.Conditions[i]
		if old.Type != c.Type {
			continue
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
			if old.Reason == c.Reason && old.Message == c.Message {
				return
			}
		}
		*old, found = c, true
	}
	if !found {
		s.Status.Conditions = append(s.Status.Conditions, c)
	}
	status := client.Resource{GroupVersionResource: resource.GroupVersionResource, Subresource: "status"}
	_, err := a.cfg.Client.Update(ctx, status, s.Name, s, metav1.UpdateOptions{FieldManager: "kube-apiserver"})
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		a.log.Error("cannot write the condition of an APIService", "name", s.Name, "err", err)
	}
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

// ServeHTTP sends one request to the server.
func (r *remote) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	base, err := r.resolve()
	if !r.available || err != nil {
		http.Error(w, "service unavailable", http.StatusServiceUnavailable)
		return
	}
	who := request.User(req.Context())
	forward := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = base.Scheme, base.Host, base.Host
			p.SetXForwarded()
			setUser(p.Out.Header, who)
		},
		Transport:     r.transport,
		FlushInterval: -1, // watches
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "error trying to reach service: "+err.Error(), http.StatusServiceUnavailable)
		},
	}
	forward.ServeHTTP(w, req)
}
