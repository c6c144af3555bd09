// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"bytes"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestEnsureKeepsAndRenews(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ca, err := EnsureCA(dir, "ca", "kubernetes")
		if err != nil {
			t.Fatal(err)
		}
		leaf := Leaf{CommonName: "kube-apiserver", DNSNames: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}
		first, err := ca.Ensure(dir, "apiserver", leaf)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ca.Ensure(dir, "apiserver", leaf)
		if err != nil || !bytes.Equal(first.Cert, again.Cert) {
			t.Fatalf("a good certificate was replaced (err %v)", err)
		}
		leaf.IPs = append(leaf.IPs, net.IPv4(10, 96, 0, 1))
		wider, err := ca.Ensure(dir, "apiserver", leaf)
		if err != nil || bytes.Equal(first.Cert, wider.Cert) {
			t.Fatalf("a certificate without the new address was kept (err %v)", err)
		}
		<-time.After(leafLife * 3 / 4) // inside the bubble this takes no time
		renewed, err := ca.Ensure(dir, "apiserver", leaf)
		if err != nil || bytes.Equal(wider.Cert, renewed.Cert) {
			t.Fatalf("a certificate near its end was kept (err %v)", err)
		}
		parsed, err := renewed.TLS()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(parsed.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: ca.Pool(), DNSName: "localhost", CurrentTime: time.Now()}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestKeysAreReadableByTheOwnerOnly(t *testing.T) {
	dir := t.TempDir()
	if _, err := EnsureCA(dir, "ca", "kubernetes"); err != nil {
		t.Fatal(err)
	}
	key, err := EnsureRSAKey(filepath.Join(dir, "sa.key"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := EnsureRSAKey(filepath.Join(dir, "sa.key"))
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := key.Public().(interface{ Equal(any) bool }); ok && !k.Equal(again.Public()) {
		t.Fatal("the key changed between two reads")
	}
	for _, name := range []string{"ca.key", "sa.key"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if key, err := ParseKey(data); err == nil && key == nil {
			t.Fatal("neither a key nor an error")
		}
	})
}
