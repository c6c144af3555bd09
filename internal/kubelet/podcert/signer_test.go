// SPDX-License-Identifier: Apache-2.0

package podcert_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// issue signs what a request asks for, good for an hour.
func issue(r *certificatesv1.PodCertificateRequest) (chain string, from, until metav1.Time, err error) {
	asked, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
	if err != nil {
		return "", from, until, err
	}
	if err := asked.CheckSignature(); err != nil {
		return "", from, until, err
	}
	authority, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", from, until, err
	}
	from = metav1.NewTime(time.Now().UTC().Truncate(time.Second))
	until = metav1.NewTime(from.Add(time.Hour))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from.Time, NotAfter: until.Time}
	der, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{SerialNumber: big.NewInt(2)}, asked.PublicKey, authority)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), from, until, err
}

// owns says whether a private key is that of a certificate.
func owns(t *testing.T, key []byte, certificate *x509.Certificate) bool {
	t.Helper()
	block, _ := pem.Decode(key)
	if block == nil || block.Type != "PRIVATE KEY" {
		t.Fatalf("key: %s", key)
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	public := private.(crypto.Signer).Public().(interface{ Equal(crypto.PublicKey) bool })
	return public.Equal(certificate.PublicKey)
}
