// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/kajitest"
)

func anchor(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// A projection by signer without a selector matches nothing, one with an empty
// selector everything.
func TestTrustBundleSelection(t *testing.T) {
	api := kajitest.Start(t).Client()
	bundles := client.For[*certificatesv1.ClusterTrustBundle](api)
	if _, err := bundles.Create(t.Context(), &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "example.com:s:a"},
		Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: "example.com/s", TrustBundle: anchor(t)}}); err != nil {
		t.Fatal(err)
	}
	k := &Kubelet{cfg: Config{Client: api}}
	for name, c := range map[string]struct {
		selector         *metav1.LabelSelector
		optional, fails  bool
		wantCertificates bool
	}{
		"none":            {fails: true},
		"none, optional":  {optional: true},
		"empty":           {selector: &metav1.LabelSelector{}, wantCertificates: true},
		"empty, optional": {selector: &metav1.LabelSelector{}, optional: true, wantCertificates: true},
		"of others":       {selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}, fails: true},
	} {
		got, err := k.trustBundle(&corev1.ClusterTrustBundleProjection{SignerName: ptr.To("example.com/s"), LabelSelector: c.selector, Optional: &c.optional})
		if (err != nil) != c.fails || len(got) > 0 != c.wantCertificates {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}
