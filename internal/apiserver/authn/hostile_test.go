// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
)

// authority signs certificates of any shape.
type authority struct {
	t    testing.TB
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert = a.sign(template, template, key)
	return a
}

func (a *authority) sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// client issues a good client certificate, changed by f.
func (a *authority) client(f func(*x509.Certificate)) *x509.Certificate {
	a.t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "carl", Organization: []string{"ops"}}, NotBefore: time.Now().Add(-time.Minute),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	f(template)
	return a.sign(template, a.cert, a.key)
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func withCertificate(chain ...*x509.Certificate) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/api", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: chain}
	return r
}

// Only a current certificate for clients with a name makes a user.
func TestHostileCertificates(t *testing.T) {
	own, strangers := newAuthority(t), newAuthority(t)
	a := New(Config{ClientCA: own.pool})
	uid := func(values ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			for _, v := range values {
				c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: uidAttribute, Value: v})
			}
		}
	}
	nothing := func(*x509.Certificate) {}
	for name, c := range map[string]struct {
		cert *x509.Certificate
		want string // user and UID, "-" for nobody, or "!" and part of the error
	}{
		"good":            {own.client(nothing), "carl "},
		"with a UID":      {own.client(uid("7")), "carl 7"},
		"two UIDs":        {own.client(uid("7", "8")), "!expected 1 UID, but found multiple: [7 8]"},
		"of strangers":    {strangers.client(nothing), "!certificate signed by unknown authority"},
		"expired":         {own.client(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), "!certificate has expired or is not yet valid"},
		"of tomorrow":     {own.client(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), "!certificate has expired or is not yet valid"},
		"for servers":     {own.client(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "!incompatible key usage"},
		"without a name":  {own.client(func(c *x509.Certificate) { c.Subject.CommonName = "" }), "-"},
		"of a false self": {own.client(func(c *x509.Certificate) { c.Subject.CommonName = "system:anonymous" }), "system:anonymous "},
	} {
		r, ok, err := a.AuthenticateRequest(withCertificate(c.cert))
		got := "-"
		if err != nil {
			got = "!" + err.Error()
		} else if ok {
			got = r.User.GetName() + " " + r.User.GetUID()
		}
		if got != c.want && !(strings.HasPrefix(c.want, "!") && strings.Contains(got, c.want[1:])) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// Headers that name a user to servers behind go no further, whoever sent them.
func TestSmuggledHeaders(t *testing.T) {
	a := New(Config{Tokens: tokens(t), Anonymous: func(string) bool { return true },
		RequestHeader: &RequestHeader{ClientCA: x509.NewCertPool, UsernameHeaders: []string{"X-Own-User"}}})
	for _, token := range []string{"", "Bearer secret"} {
		r := httptest.NewRequest(http.MethodGet, "/api", nil)
		for _, h := range []string{"X-Remote-User", "X-Remote-Group", "X-Remote-Uid", "x-remote-extra-scopes", "X-Own-User"} {
			r.Header.Set(h, "system:masters")
		}
		if token != "" {
			r.Header.Set("Authorization", token)
		}
		who, ok, err := a.AuthenticateRequest(r)
		if err != nil || !ok || who.User.GetName() != map[string]string{"": "system:anonymous", "Bearer secret": "ann"}[token] {
			t.Fatalf("%q: %v, %v, %v", token, who, ok, err)
		}
		if len(r.Header) != 0 {
			t.Errorf("%q: left %v", token, r.Header)
		}
	}
}

// A token for another server is refused here, and accepted for whoever asks
// about that server.
func TestAudiences(t *testing.T) {
	vault := authenticator.TokenFunc(func(ctx context.Context, token string) (*authenticator.Response, bool, error) {
		known, err := TokenFile(strings.NewReader("t,zoe,1\n"))
		if err != nil {
			return nil, false, err
		}
		r, ok, err := known.AuthenticateToken(ctx, token)
		if ok {
			r.Audiences = authenticator.Audiences{"vault"}
		}
		return r, ok, err
	})
	a := New(Config{Tokens: []authenticator.Token{vault}, Audiences: authenticator.Audiences{"api"}})
	r := httptest.NewRequest(http.MethodGet, "/api", nil)
	r.Header.Set("Authorization", "Bearer t")
	if who, ok, err := a.AuthenticateRequest(r); ok || err == nil || !strings.Contains(err.Error(), "unable to match the audience: [vault] , accepted: [api]") {
		t.Errorf("for this server: %v, %v, %v", who, ok, err)
	}
	r = r.Clone(authenticator.WithAudiences(t.Context(), authenticator.Audiences{"vault", "x"}))
	r.Header.Set("Authorization", "Bearer t")
	if who, ok, err := a.AuthenticateRequest(r); !ok || err != nil || who.User.GetName() != "zoe" {
		t.Errorf("for the other: %v, %v, %v", who, ok, err)
	}
}

func FuzzCertificate(f *testing.F) {
	own := newAuthority(f)
	good := own.client(func(*x509.Certificate) {})
	a := New(Config{ClientCA: own.pool, RequestHeader: &RequestHeader{ClientCA: own.pool, AllowedNames: []string{"proxy"}, UsernameHeaders: []string{"X-Remote-User"}}})
	f.Add(good.Raw)
	f.Add(own.client(uidOf("7")).Raw)
	f.Add(own.cert.Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		r := withCertificate(cert, good)
		r.Header.Set("X-Remote-User", "root")
		who, ok, _ := a.AuthenticateRequest(r)
		if ok && cert.CheckSignatureFrom(own.cert) != nil {
			t.Fatalf("accepted %v of a certificate that nobody signed", who.User)
		}
	})
}

func uidOf(value string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: uidAttribute, Value: value}}
	}
}

func FuzzBearer(f *testing.F) {
	file, err := TokenFile(strings.NewReader("secret,ann,7\n"))
	if err != nil {
		f.Fatal(err)
	}
	a := New(Config{Tokens: []authenticator.Token{file}})
	f.Add("Bearer secret", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0")
	f.Add("bearer  secret", "base64url.bearer.authorization.k8s.io.,,")
	f.Add("Basic secret", "\x00")
	f.Fuzz(func(t *testing.T, header, protocols string) {
		r := &http.Request{Method: "GET", URL: httptest.NewRequest("GET", "/", nil).URL, Header: http.Header{
			"Authorization": {header}, "Upgrade": {"websocket"}, protocolHeader: {protocols}}}
		who, ok, _ := a.AuthenticateRequest(r)
		if ok && !strings.Contains(header, "secret") && !strings.Contains(protocols, "c2VjcmV0") {
			t.Fatalf("%q, %q: accepted as %v", header, protocols, who.User)
		}
	})
}
