// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"kaji/internal/pki"
)

// serve runs the server by its flags until the test ends.
func serve(t *testing.T, args ...string) {
	t.Helper()
	fs := pflag.NewFlagSet("etcd", pflag.ContinueOnError)
	o := AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, o, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestClientCertificates: with --client-cert-auth nobody reads the store without
// a certificate of the authority that was named, nor in plain text; the data is
// the process's owner's only.
func TestClientCertificates(t *testing.T) {
	dir := t.TempDir()
	ca, err := pki.EnsureCA(dir, "ca", "etcd-ca")
	if err != nil {
		t.Fatal(err)
	}
	strange, err := pki.EnsureCA(dir, "strange", "strange")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Ensure(dir, "server", pki.Leaf{CommonName: "etcd", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	data := filepath.Join(dir, "data")
	serve(t, "--data-dir", data, "--listen-client-urls", "https://"+address, "--cert-file", filepath.Join(dir, "server.crt"), "--key-file", filepath.Join(dir, "server.key"),
		"--trusted-ca-file", filepath.Join(dir, "ca.crt"), "--client-cert-auth")
	reads := func(url string, authority *pki.CA, wait time.Duration) error {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca.Cert)
		secure := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
		if authority != nil {
			pair, err := authority.Issue(pki.Leaf{CommonName: "kube-apiserver", Client: true})
			if err != nil {
				t.Fatal(err)
			}
			certificate, err := pair.TLS()
			if err != nil {
				t.Fatal(err)
			}
			secure.Certificates = []tls.Certificate{certificate}
		}
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, TLS: secure, Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		_, err = c.Get(ctx, "/registry/a")
		return err
	}
	if err := reads("https://"+address, ca, time.Minute); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	for name, c := range map[string]*pki.CA{"nobody": nil, "a stranger": strange} {
		if err := reads("https://"+address, c, 2*time.Second); err == nil {
			t.Errorf("%s reads the store", name)
		}
	}
	if err := reads("http://"+address, nil, 2*time.Second); err == nil {
		t.Error("the store is read in plain text")
	}
	if info, err := os.Stat(filepath.Join(data, "store")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the data directory: %v, %v", info, err)
	}
}
