// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/pflag"

	"kaji/internal/pki"
)

// A cluster that is started again years later has valid certificates under the
// same authority, and one that runs on renews its own while it runs: nobody's
// kubeconfig ends after a year.
func TestYearsLater(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		options := func() *Options {
			fs := pflag.NewFlagSet("", pflag.ContinueOnError)
			o := AddFlags(fs)
			o.DataDir = dir
			if err := o.Complete(fs); err != nil {
				t.Fatal(err)
			}
			return o
		}
		first, err := loadKeys(options())
		if err != nil {
			t.Fatal(err)
		}
		kubeconfig := first.Admin
		serving := leafOf(t, first.Serving.get())
		for range 10 {
			time.Sleep(300 * 24 * time.Hour) // inside the bubble this takes no time
			now := leafOf(t, first.Serving.get())
			checkValid(t, "the running server", now, first.CA)
			if now.SerialNumber.Cmp(serving.SerialNumber) == 0 {
				t.Error("the certificate of a server that ran for 300 days more is the one before")
			}
			serving = now
			again, err := loadKeys(options())
			if err != nil {
				t.Fatal(err)
			}
			if !again.CA.Certificate().Equal(first.CA.Certificate()) {
				t.Error("the authority is another")
			}
			checkValid(t, "the client of node agents", leafOf(t, first.KubeletClient.get()), first.CA)
			checkValid(t, "the server started again", leafOf(t, again.Serving.get()), first.CA)
			for what, pair := range map[string]pki.Pair{"the first kubeconfig": kubeconfig, "the administrator": again.Admin} {
				certificate, err := pair.TLS()
				if err != nil {
					t.Fatal(err)
				}
				checkValid(t, what, leafOf(t, &certificate), first.CA)
			}
		}
	})
}

func leafOf(t *testing.T, c *tls.Certificate) *x509.Certificate {
	t.Helper()
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func checkValid(t *testing.T, what string, leaf *x509.Certificate, ca *pki.CA) {
	t.Helper()
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Errorf("%s at %s: %v", what, time.Now().Format(time.DateOnly), err)
	}
}
