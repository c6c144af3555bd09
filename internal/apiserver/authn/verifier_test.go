// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"
)

// TestVerifiedOnce verifies a certificate's signature once, and its dates and
// roots at every use.
func TestVerifiedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, other := newAuthority(t), newAuthority(t)
		chain := []*x509.Certificate{own.client(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Minute), time.Now().Add(time.Hour)
		})}
		var v verifier
		verify := func(roots *x509.CertPool, chain []*x509.Certificate) error {
			_, err := v.verify(roots, chain)
			return err
		}
		roots, others := own.pool(), other.pool()
		if verify(roots, chain) == nil {
			t.Fatal("good before its time")
		}
		time.Sleep(time.Minute)
		for range 3 {
			if err := verify(roots, chain); err != nil {
				t.Fatal(err)
			}
		}
		if n := v.known.Len(); n != 1 {
			t.Errorf("%d chains are known", n)
		}
		if verify(others, chain) == nil {
			t.Error("good under roots that did not sign it")
		}
		if verify(nil, chain) == nil {
			t.Error("good without roots")
		}
		if err := verify(roots, chain); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour - time.Minute)
		if err := verify(roots, chain); err != nil {
			t.Errorf("in its last second: %v", err)
		}
		time.Sleep(time.Second)
		if verify(roots, chain) == nil {
			t.Error("good after its time")
		}
	})
}

// TestRootsEnd: a chain is good no longer than the shortest of its certificates.
func TestRootsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := newAuthority(t)
		chain := []*x509.Certificate{own.client(func(c *x509.Certificate) { c.NotAfter = own.cert.NotAfter.Add(time.Hour) })}
		var v verifier
		verify := func(roots *x509.CertPool, chain []*x509.Certificate) error {
			_, err := v.verify(roots, chain)
			return err
		}
		roots := own.pool()
		if err := verify(roots, chain); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(own.cert.NotAfter) + time.Second)
		if verify(roots, chain) == nil {
			t.Error("good when its authority no longer is")
		}
	})
}

// BenchmarkCertificate is a request's client certificate, seen before.
func BenchmarkCertificate(b *testing.B) {
	own := newAuthority(b)
	roots := own.pool()
	a := New(Config{ClientCA: func() *x509.CertPool { return roots }})
	r := withCertificate(own.client(func(*x509.Certificate) {}))
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := a.AuthenticateRequest(r); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
