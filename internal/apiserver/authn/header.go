// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"crypto/x509"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

// RequestHeader trusts a front proxy, known by its certificate, to name the
// user in headers. The headers are removed from every request that passed.
type RequestHeader struct {
	// ClientCA returns the authorities that sign the proxy's certificate; others
	// are another pool.
	ClientCA func() *x509.CertPool
	// AllowedNames are the common names of trusted proxies; empty allows all
	// certificates of the authority.
	AllowedNames []string
	// UsernameHeaders, UIDHeaders and GroupHeaders are looked at in order;
	// ExtraHeaderPrefixes begin the names of further attributes.
	UsernameHeaders, UIDHeaders, GroupHeaders, ExtraHeaderPrefixes []string

	verifier verifier
}

// AuthenticateRequest implements authenticator.Request.
func (h *RequestHeader) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, false, nil
	}
	u := &user.DefaultInfo{Name: firstHeader(r.Header, h.UsernameHeaders), UID: firstHeader(r.Header, h.UIDHeaders)}
	if u.Name == "" {
		return nil, false, nil
	}
	// A certificate of another authority is an ordinary client's.
	if _, err := h.verifier.verify(h.ClientCA(), r.TLS.PeerCertificates); err != nil {
		return nil, false, nil
	}
	name := r.TLS.PeerCertificates[0].Subject.CommonName
	if len(h.AllowedNames) > 0 && !slices.Contains(h.AllowedNames, name) {
		return nil, false, nil
	}
	for _, header := range h.GroupHeaders {
		u.Groups = append(u.Groups, r.Header.Values(header)...)
	}
	u.Extra = h.extra(r.Header)
	h.strip(r.Header)
	return &authenticator.Response{User: u}, true, nil
}

func firstHeader(header http.Header, names []string) string {
	for _, name := range names {
		if v := header.Get(name); v != "" {
			return v
		}
	}
	return ""
}

func (h *RequestHeader) extra(header http.Header) map[string][]string {
	extra := map[string][]string{}
	for name, values := range header {
		if key, ok := h.extraKey(name); ok {
			extra[key] = append(extra[key], values...)
		}
	}
	return extra
}

func (h *RequestHeader) extraKey(name string) (string, bool) {
	for _, prefix := range h.ExtraHeaderPrefixes {
		if len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
			key := strings.ToLower(name[len(prefix):])
			if plain, err := url.PathUnescape(key); err == nil {
				key = plain
			}
			return key, true
		}
	}
	return "", false
}

func (h *RequestHeader) strip(header http.Header) {
	for _, names := range [][]string{h.UsernameHeaders, h.UIDHeaders, h.GroupHeaders} {
		for _, name := range names {
			header.Del(name)
		}
	}
	for name := range header {
		if _, ok := h.extraKey(name); ok {
			delete(header, name)
		}
	}
}
