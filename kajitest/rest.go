// SPDX-License-Identifier: Apache-2.0

package kajitest

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"

	"kaji/internal/pki"
)

// adminToken names the user who may do everything. The server listens on
// loopback for the time of one test; there is nothing to protect.
const adminToken = "admin"

// RESTConfig returns how to reach the control plane over TLS, as a user who
// may do everything. The listener is opened at the first call.
func (c *Cluster) RESTConfig() *rest.Config {
	c.t.Helper()
	c.restOnce.Do(c.listen)
	return rest.CopyConfig(c.rest)
}

func (c *Cluster) listen() {
	c.t.Helper()
	dir := c.t.TempDir()
	ca, err := pki.EnsureCA(dir, "ca", "kajitest")
	if err != nil {
		c.t.Fatalf("kajitest: %v", err)
	}
	pair, err := ca.Issue(pki.Leaf{
		CommonName: "kube-apiserver", DNSNames: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
	if err != nil {
		c.t.Fatalf("kajitest: %v", err)
	}
	certificate, err := pair.TLS()
	if err != nil {
		c.t.Fatalf("kajitest: %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatalf("kajitest: %v", err)
	}
	web := &http.Server{
		Handler:           c.server.Handler(),
		ReadHeaderTimeout: time.Minute,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}},
	}
	done := make(chan error, 1)
	go func() { done <- web.ServeTLS(listener, "", "") }()
	c.t.Cleanup(func() {
		_ = web.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			c.t.Errorf("kajitest: %v", err)
		}
	})
	c.rest = &rest.Config{
		Host:            "https://" + listener.Addr().String(),
		BearerToken:     adminToken,
		QPS:             -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: ca.Pair.Cert},
	}
}

// tokens knows the administrator, and everybody else as whom the token
// says: "alice" or, with groups, "alice:devs:ops".
type tokens struct{}

// AuthenticateRequest implements authenticator.Request.
func (tokens) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case !ok:
		return &authenticator.Response{User: &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}}, true, nil
	case token == adminToken:
		return &authenticator.Response{User: admin()}, true, nil
	}
	parts := strings.Split(token, ":")
	return &authenticator.Response{User: &user.DefaultInfo{Name: parts[0], Groups: append(parts[1:], user.AllAuthenticated)}}, true, nil
}
