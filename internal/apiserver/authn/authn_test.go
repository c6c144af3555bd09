// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/authenticator"

	"kaji/internal/pki"
)

func tokens(t *testing.T) []authenticator.Token {
	t.Helper()
	file, err := TokenFile(strings.NewReader("secret,ann,7,\"dev,ops\"\nplain,bob,8\n"))
	if err != nil {
		t.Fatal(err)
	}
	return []authenticator.Token{file}
}

func ca(t *testing.T, name string) *pki.CA {
	t.Helper()
	ca, err := pki.EnsureCA(t.TempDir(), "ca", name)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// certificate puts a client certificate on a request.
func certificate(t *testing.T, r *http.Request, by *pki.CA, leaf pki.Leaf) {
	t.Helper()
	pair, err := by.Issue(leaf)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(parsed.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
}

func TestWhoIsIt(t *testing.T) {
	clients, proxies, strangers := ca(t, "clients"), ca(t, "proxies"), ca(t, "strangers")
	a := New(Config{
		ClientCA: clients.Pool,
		RequestHeader: &RequestHeader{ClientCA: proxies.Pool, AllowedNames: []string{"aggregator"},
			UsernameHeaders: []string{"X-Remote-User"}, GroupHeaders: []string{"X-Remote-Group"}, ExtraHeaderPrefixes: []string{"X-Remote-Extra-"}},
		Tokens:    tokens(t),
		Anonymous: func(path string) bool { return path != "/closed" },
	})
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Add(name, value) }
	}
	signed := func(by *pki.CA, name string, groups ...string) func(*http.Request) {
		return func(r *http.Request) {
			certificate(t, r, by, pki.Leaf{CommonName: name, Organizations: groups, Client: true})
		}
	}
	all := func(steps ...func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) {
			for _, s := range steps {
				s(r)
			}
		}
	}
	encoded := base64.RawURLEncoding.EncodeToString([]byte("secret"))
	for name, c := range map[string]struct {
		prepare func(*http.Request)
		want    string // user groups, "-" for nobody, or "!" and part of the error
	}{
		"token":                 {header("Authorization", "Bearer secret"), "ann dev,ops,system:authenticated"},
		"scheme in any case":    {header("Authorization", "bEaReR plain"), "bob system:authenticated"},
		"wrong token":           {header("Authorization", "Bearer nope"), "!invalid bearer token"},
		"no token":              {header("Authorization", "Bearer "), "system:anonymous system:unauthenticated"},
		"basic":                 {header("Authorization", "Basic YTpi"), "system:anonymous system:unauthenticated"},
		"nothing":               {func(*http.Request) {}, "system:anonymous system:unauthenticated"},
		"closed path":           {func(r *http.Request) { r.URL.Path = "/closed" }, "-"},
		"certificate":           {signed(clients, "carl", "a", "b"), "carl a,b,system:authenticated"},
		"certificate of others": {signed(strangers, "carl", "a"), "!verifying certificate SN="},
		"certificate, no name":  {signed(clients, "", "a"), "system:anonymous system:unauthenticated"},
		"front proxy": {all(signed(proxies, "aggregator"), header("X-Remote-User", "dora"), header("X-Remote-Group", "g")),
			"dora g,system:authenticated"},
		"front proxy not allowed":   {all(signed(proxies, "else"), header("X-Remote-User", "dora")), "!verifying certificate"},
		"headers without the proxy": {header("X-Remote-User", "dora"), "system:anonymous system:unauthenticated"},
		"headers of a client":       {all(signed(clients, "carl"), header("X-Remote-User", "dora")), "carl system:authenticated"},
		"web socket": {all(header("Upgrade", "websocket"), header(protocolHeader, "v5.channel.k8s.io, "+protocolPrefix+encoded)),
			"ann dev,ops,system:authenticated"},
		"web socket, token alone": {all(header("Upgrade", "websocket"), header(protocolHeader, protocolPrefix+encoded)),
			"system:anonymous system:unauthenticated"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/api", nil)
		c.prepare(r)
		response, ok, err := a.AuthenticateRequest(r)
		got := "-"
		if err != nil {
			got = "!" + err.Error()
		} else if ok {
			got = response.User.GetName() + " " + strings.Join(response.User.GetGroups(), ",")
		}
		if got != c.want && !(strings.HasPrefix(c.want, "!") && strings.Contains(got, c.want[1:])) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
		if strings.Contains(got, "secret") {
			t.Errorf("%s: the answer tells the token", name)
		}
	}
}

func TestCredentialsAreNotPassedOn(t *testing.T) {
	a := New(Config{Tokens: tokens(t)})
	r := httptest.NewRequest(http.MethodGet, "/api", nil)
	r.Header.Set("Authorization", "Bearer secret")
	if _, ok, err := a.AuthenticateRequest(r); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if r.Header.Get("Authorization") != "" {
		t.Error("the token is still in the request")
	}
}

func TestTokenFileFaults(t *testing.T) {
	for in, want := range map[string]string{
		"a,b\n":           "line 1 must have at least 3 columns",
		"ok,u,1\n\"x,y,z": "quote",
	} {
		if _, err := TokenFile(strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", in, err, want)
		}
	}
	if file, err := TokenFile(strings.NewReader(",nobody,1\n")); err != nil || len(file.(tokenFile)) != 0 {
		t.Errorf("an empty token became %v, %v", file, err)
	}
}
