// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/pki"
)

// users are known by token in every test's server.
const users = `root,root,0,"system:masters"
ann,ann,1,"devs"
bob,bob,2
`

// tokenKey signs the ServiceAccount tokens of all tests' servers: making one
// takes long.
var tokenKey = sync.OnceValue(func() []byte {
	dir, err := os.MkdirTemp("", "kaji-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "sa.key")
	if _, err := pki.EnsureRSAKey(path); err != nil {
		panic(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	return data
})

// start runs a whole API server, with everything its command line wires, until
// the test ends.
func start(t testing.TB, args ...string) *Plane {
	t.Helper()
	return startWith(t, slog.New(slog.DiscardHandler), args...)
}

// startWith is start with a log.
func startWith(t testing.TB, log *slog.Logger, args ...string) *Plane {
	t.Helper()
	p, err := build(t, log, args...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	select {
	case <-p.Ready():
	case <-time.After(time.Minute):
		t.Fatal("the server does not become ready")
	}
	return p
}

// refuseStart returns why a server does not start.
func refuseStart(t *testing.T, args ...string) error {
	t.Helper()
	p, err := build(t, slog.New(slog.DiscardHandler), args...)
	if err == nil {
		return p.Close()
	}
	return err
}

// build makes a server as its command line says.
func build(t testing.TB, log *slog.Logger, args ...string) (*Plane, error) {
	t.Helper()
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens.csv")
	if err := os.WriteFile(tokens, []byte(users), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "pki"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pki", "sa.key"), tokenKey(), 0o600); err != nil {
		t.Fatal(err)
	}
	fs := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	o := AddFlags(fs)
	args = append([]string{"--data-dir", dir, "--token-auth-file", tokens, "--bind-address", "127.0.0.1"}, args...)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	if err := o.Complete(fs); err != nil {
		return nil, err
	}
	o.Serving.SecurePort = 0 // any free one
	return New(t.Context(), o, log)
}

// answer is what a server said.
type answer struct {
	code int
	body []byte
}

func (a answer) String() string { return fmt.Sprintf("%d %.600s", a.code, a.body) }

// status is the answer as a Status.
func (a answer) status(t *testing.T) metav1.Status {
	t.Helper()
	var s metav1.Status
	if err := json.Unmarshal(a.body, &s); err != nil {
		t.Fatalf("%v: %v", a, err)
	}
	return s
}

// asker sends requests as the bearer of a token (none when empty).
type asker struct {
	t      *testing.T
	base   string
	token  string
	client *http.Client
	header http.Header
	host   string // asked for instead of the address
}

// as returns who asks with a token, and with headers of "Name: value".
func (p *Plane) as(t *testing.T, token string, headers ...string) *asker {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.Keys.CA.Cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	a := &asker{t: t, base: p.Address(), token: token, client: &http.Client{Transport: transport, Timeout: time.Minute}, header: http.Header{}}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		a.header.Add(name, value)
	}
	return a
}

// tls is how the asker shows itself.
func (a *asker) tls() *tls.Config { return a.client.Transport.(*http.Transport).TLSClientConfig }

func (a *asker) do(method, path, body string) answer {
	a.t.Helper()
	r, err := http.NewRequestWithContext(a.t.Context(), method, a.base+path, bytes.NewReader([]byte(body)))
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header = a.header.Clone()
	if a.host != "" {
		r.Host = a.host
	}
	if a.token != "" {
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	if r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/yaml")
	}
	res, err := a.client.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return answer{res.StatusCode, data}
}

// must creates an object at a path.
func (a *asker) must(path, object string) answer {
	a.t.Helper()
	got := a.do("POST", path, object)
	if got.code != http.StatusCreated {
		a.t.Fatalf("POST %s: %v", path, got)
	}
	return got
}

// refused checks that a request gets a code and a message.
func (a *asker) refused(method, path, body string, code int, message string) {
	a.t.Helper()
	got := a.do(method, path, body)
	if got.code != code || got.status(a.t).Message != message {
		a.t.Errorf("%s %s:\n got %v\nwant %d %s", method, path, got, code, message)
	}
}
