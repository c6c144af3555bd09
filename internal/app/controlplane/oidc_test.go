// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// openID is a small OpenID Connect issuer.
type openID struct {
	t   testing.TB
	url string
	ca  string
	key *ecdsa.PrivateKey
}

func newOpenID(t testing.TB) *openID {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := &openID{t: t, key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": o.url, "jwks_uri": o.url + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "ES256", Use: "sig"}}})
	})
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	o.url = server.URL
	o.ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	return o
}

// token signs claims, with those every token has unless they are given.
func (o *openID) token(claims map[string]any) string {
	o.t.Helper()
	all := map[string]any{"iss": o.url, "aud": "kaji", "sub": "u1", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix()}
	for k, v := range claims {
		all[k] = v
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: o.key, KeyID: "k"}}, nil)
	if err != nil {
		o.t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(all).Serialize()
	if err != nil {
		o.t.Fatal(err)
	}
	return token
}

// write makes a file of a test.
func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	rewrite(t, path, text)
	return path
}

// rewrite changes a file at once.
func rewrite(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+by)
}

// config is an AuthenticationConfiguration that trusts the issuer.
func (o *openID) config(prefix string) string {
	return fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions: [{path: /livez}]
jwt:
- issuer:
    url: %s
    audiences: [kaji]
    certificateAuthority: |
%s
  claimValidationRules:
  - expression: 'claims.tier != "free"'
    message: no free tier
  claimMappings:
    username: {expression: '"%s" + claims.sub'}
    groups: {claim: teams, prefix: "team:"}
    extra: [{key: example.com/tier, valueExpression: claims.tier}]
  userValidationRules:
  - {expression: "!user.username.startsWith('system:')", message: reserved}
`, o.url, indent(o.ca, "      "), prefix)
}

// waitUntil asks again until it is so.
func waitUntil(t testing.TB, otherwise string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !so(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal(otherwise)
		}
	}
}

// Tokens of an OpenID issuer are good by the rules of the configuration, and a
// changed file is taken over unless it is broken.
func TestAuthenticationConfiguration(t *testing.T) {
	t.Parallel()
	issuer := newOpenID(t)
	file := write(t, "authn.yaml", issuer.config("oidc:"))
	p := start(t, "--authentication-config", file)
	claims := map[string]any{"teams": []string{"a", "b"}, "tier": "gold"}
	good := p.as(t, issuer.token(claims))
	waitUntil(t, "the issuer's keys do not come", func() bool { return good.do("GET", "/version", "").code == 200 })
	who := good.who()
	if who.Username != "oidc:u1" || strings.Join(who.Groups, " ") != "team:a team:b system:authenticated" || who.Extra["example.com/tier"][0] != "gold" {
		t.Errorf("who: %+v", who)
	}
	bad := func(change string, value any) {
		t.Helper()
		c := map[string]any{"teams": []string{}, "tier": "gold", change: value}
		p.as(t, issuer.token(c)).refused("GET", "/version", "", 401, "Unauthorized")
	}
	bad("aud", "another")
	bad("exp", time.Now().Add(-time.Hour).Unix())
	bad("nbf", time.Now().Add(time.Hour).Unix())
	bad("tier", "free")
	bad("iss", "https://example.com")
	forged := newOpenID(t)
	forged.url = issuer.url
	p.as(t, forged.token(claims)).refused("GET", "/version", "", 401, "Unauthorized")

	// Anonymous has one path.
	if got := p.as(t, "").do("GET", "/livez", ""); got.code != 200 {
		t.Errorf("anonymous at /livez: %v", got)
	}
	p.as(t, "").refused("GET", "/version", "", 401, "Unauthorized")

	metrics := func(status string) bool {
		return strings.Contains(string(p.as(t, "root").do("GET", "/metrics", "").body), `apiserver_authentication_config_controller_automatic_reloads_total{apiserver_id_hash="`+"sha256:") &&
			strings.Contains(string(p.as(t, "root").do("GET", "/metrics", "").body), `status="`+status+`"} 1`)
	}
	rewrite(t, file, strings.Replace(issuer.config("x:"), "audiences: [kaji]", "audiences: []", 1))
	waitUntil(t, "a broken file is not counted", func() bool { return metrics("failure") })
	if got := good.who().Username; got != "oidc:u1" {
		t.Errorf("after a broken file: %q", got)
	}
	rewrite(t, file, issuer.config("new:"))
	waitUntil(t, "a changed file is not taken over", func() bool { return good.who().Username == "new:u1" })
}

// The flags say the same as a configuration.
func TestOIDCFlags(t *testing.T) {
	t.Parallel()
	issuer := newOpenID(t)
	p := start(t, "--oidc-issuer-url", issuer.url, "--oidc-client-id", "kaji", "--oidc-ca-file", write(t, "ca.pem", issuer.ca),
		"--oidc-groups-claim", "teams", "--oidc-groups-prefix", "oidc:", "--oidc-required-claim", "tier=gold", "--oidc-signing-algs", "ES256")
	good := p.as(t, issuer.token(map[string]any{"teams": []string{"a"}, "tier": "gold"}))
	waitUntil(t, "the issuer's keys do not come", func() bool { return good.do("GET", "/version", "").code == 200 })
	if who := good.who(); who.Username != issuer.url+"#u1" || strings.Join(who.Groups, " ") != "oidc:a system:authenticated" {
		t.Errorf("who: %+v", who)
	}
	p.as(t, issuer.token(map[string]any{"tier": "iron"})).refused("GET", "/version", "", 401, "Unauthorized")
}
