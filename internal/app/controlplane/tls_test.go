// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"crypto/tls"
	"os"
	"strings"
	"testing"

	"kaji/internal/pki"
)

// files writes a certificate of some names and its key.
func files(t *testing.T, ca *pki.CA, leaf pki.Leaf) (cert, key string) {
	t.Helper()
	pair, err := ca.Issue(leaf)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "tls.crt", string(pair.Cert)), write(t, "tls.key", string(pair.Key))
}

// shown is the common name the server shows to who asks for a name.
func (p *Plane) shown(t *testing.T, server string, change func(*tls.Config)) (string, error) {
	t.Helper()
	c := &tls.Config{ServerName: server, InsecureSkipVerify: true} //nolint:gosec // the name shown is what is asked for
	if change != nil {
		change(c)
	}
	conn, err := tls.Dial("tcp", strings.TrimPrefix(p.Address(), "https://"), c)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

// Certificates are shown by name and read again when they change; old versions
// and ciphers that were not named are refused.
func TestServingFlags(t *testing.T) {
	t.Parallel()
	ca, err := pki.EnsureCA(t.TempDir(), "ca", "test")
	if err != nil {
		t.Fatal(err)
	}
	cert, key := files(t, ca, pki.Leaf{CommonName: "main", DNSNames: []string{"main.example"}})
	otherCert, otherKey := files(t, ca, pki.Leaf{CommonName: "other", DNSNames: []string{"other.example"}})
	p := start(t, "--tls-cert-file", cert, "--tls-private-key-file", key, "--tls-sni-cert-key", otherCert+","+otherKey+":*.other.example,other.example",
		"--tls-cipher-suites", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")
	for server, want := range map[string]string{"": "main", "main.example": "main", "other.example": "other", "a.other.example": "other", "a.b.other.example": "main"} {
		if got, err := p.shown(t, server, nil); got != want {
			t.Errorf("%q: got %q, %v", server, got, err)
		}
	}
	if _, err := p.shown(t, "", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11; c.MinVersion = tls.VersionTLS10 }); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	if _, err := p.shown(t, "", func(c *tls.Config) {
		c.MaxVersion = tls.VersionTLS12
		c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	}); err == nil {
		t.Error("a cipher that was not named is used")
	}
	next, err := ca.Issue(pki.Leaf{CommonName: "renewed", DNSNames: []string{"main.example"}})
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, key, string(next.Key))
	rewrite(t, cert, string(next.Cert))
	waitUntil(t, "a renewed certificate is not shown", func() bool { got, _ := p.shown(t, "", nil); return got == "renewed" })
	for _, args := range [][]string{{"--tls-min-version", "VersionTLS9"}, {"--tls-cipher-suites", "ROT13"}, {"--tls-sni-cert-key", "x"}} {
		if err := refuseStart(t, args...); err == nil || !strings.Contains(err.Error(), args[0]) {
			t.Errorf("%v: %v", args, err)
		}
	}
	if got, err := start(t, "--tls-min-version", "VersionTLS13").shown(t, "", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }); err == nil {
		t.Errorf("TLS 1.2 is spoken, by %q", got)
	}
}

// A bundle of client authorities takes effect as soon as it changes, and keys on
// disk are their owner's only.
func TestClientAuthorities(t *testing.T) {
	t.Parallel()
	old, err := pki.EnsureCA(t.TempDir(), "ca", "old")
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := pki.EnsureCA(t.TempDir(), "ca", "fresh")
	if err != nil {
		t.Fatal(err)
	}
	bundle := write(t, "clients.pem", string(old.Cert))
	p := start(t, "--client-ca-file", bundle)
	code := func(ca *pki.CA) int {
		pair, err := ca.Issue(pki.Leaf{CommonName: "carl", Client: true})
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := pair.TLS()
		if err != nil {
			t.Fatal(err)
		}
		a := p.as(t, "")
		a.tls().Certificates = []tls.Certificate{certificate}
		return a.do("GET", "/version", "").code
	}
	if got := code(old); got != 200 {
		t.Errorf("known authority: %d", got)
	}
	if got := code(fresh); got != 401 {
		t.Errorf("unknown authority: %d", got)
	}
	rewrite(t, bundle, string(fresh.Cert))
	waitUntil(t, "a changed bundle is not taken over", func() bool { return code(fresh) == 200 })
	if got := code(old); got != 401 {
		t.Errorf("an authority that was taken away: %d", got)
	}
	for _, name := range []string{"ca.key", "apiserver.key", "sa.key", "admin.key", "front-proxy-ca.key"} {
		info, err := os.Stat(p.Options.DataDir + "/pki/" + name)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	// Aggregated servers are told of the authorities that were given.
	got := p.as(t, "root").do("GET", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", "")
	if got.code != 200 || !strings.Contains(string(got.body), "client-ca-file") || strings.Contains(string(got.body), "requestheader-client-ca-file") {
		t.Errorf("published: %v", got)
	}
}

// A certificate of another authority that lies in the certificate directory is
// shown and stays there, over restarts too.
func TestForeignServingCertificate(t *testing.T) {
	t.Parallel()
	ca, err := pki.EnsureCA(t.TempDir(), "ca", "elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := ca.Ensure(dir, "apiserver", pki.Leaf{CommonName: "foreign", DNSNames: []string{"localhost"}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := start(t, "--cert-dir", dir).shown(t, "", nil); got != "foreign" {
			t.Errorf("got %q, %v", got, err)
		}
	}
}
