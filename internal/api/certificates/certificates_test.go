// SPDX-License-Identifier: Apache-2.0

package certificates

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
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/kindtest"
)

func key(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func request(t *testing.T, k *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func certificate(t *testing.T, k *ecdsa.PrivateKey, ca bool, from, to time.Time) string {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: ca, BasicConstraintsValid: ca, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestSigningRequest(t *testing.T) {
	r := &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{
		Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request(t, key(t))}),
		SignerName: "example.com/s", Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
	}}
	kindtest.Expect(t, kindtest.Messages(validateRequest(r, nil)))

	bad := r.DeepCopy()
	bad.Spec.SignerName, bad.Spec.Usages = "nodomain", []certificatesv1.KeyUsage{"client auth", "client auth"}
	bad.Spec.ExpirationSeconds = new(int32)
	kindtest.Expect(t, kindtest.Messages(validateRequest(bad, nil)),
		`spec.signerName: Invalid value: "nodomain": must be a fully qualified domain and path of the form 'example.com/signer-name'`,
		`spec.usages[1]: Duplicate value: "client auth"`,
		"spec.expirationSeconds: Invalid value: 0: may not specify a duration less than 600 seconds (10 minutes)")

	approved := r.DeepCopy()
	approved.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}
	approved.Status.Certificate = []byte("x")
	kindtest.Expect(t, kindtest.Messages(validateRequestUpdate(approved, r, view{})),
		`status.conditions: Forbidden: updates may not add a condition of type "Approved"`,
		`status.certificate: Invalid value: "<certificate data>": must contain at least one CERTIFICATE PEM block`,
		"status.certificate: Forbidden: updates may not set certificate content")
	approved.Status.Certificate = nil
	kindtest.Expect(t, kindtest.Messages(validateRequestUpdate(approved, r, view{approval: true})))
	both := approved.DeepCopy()
	both.Status.Conditions = append(both.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateDenied, Status: corev1.ConditionTrue})
	kindtest.Expect(t, kindtest.Messages(validateRequestUpdate(both, r, view{approval: true})),
		`status.conditions: Invalid value: "{conditions[{\"type\": \"Approved\"}], conditions[{\"type\": \"Denied\"}]}": `+
			"must specify at most one of: `conditions[{\"type\": \"Approved\"}]`, `conditions[{\"type\": \"Denied\"}]`")
	if cells := kindtest.Cells(t, certificateSigningRequest(), approved); cells[5] != "Approved" {
		t.Errorf("cells %v", cells)
	}
}

func TestTrustBundle(t *testing.T) {
	now := time.Now()
	anchor := certificate(t, key(t), true, now, now.Add(time.Hour))
	b := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "example.com:s:a"}}
	b.Spec = certificatesv1.ClusterTrustBundleSpec{SignerName: "example.com/s", TrustBundle: anchor}
	check := clusterTrustBundle().Rules.Validate
	kindtest.Expect(t, kindtest.Messages(check(b)))
	b.Name, b.Spec.TrustBundle = "other", anchor+anchor
	kindtest.Expect(t, kindtest.Messages(check(b)),
		`metadata.name: Invalid value: "other": ClusterTrustBundle for signerName example.com/s must be named with prefix example.com:s:`,
		`spec.trustBundle: Invalid value: "<value omitted>": duplicate trust anchor (indices [0 1])`)
	b.Name, b.Spec.SignerName, b.Spec.TrustBundle = "a:b", "", certificate(t, key(t), false, now, now.Add(time.Hour))
	kindtest.Expect(t, kindtest.Messages(check(b)),
		`metadata.name: Invalid value: "a:b": ClusterTrustBundle without signer name must not have ":" in its name`,
		`spec.trustBundle: Invalid value: "<value omitted>": entry 0 does not have the CA bit set`)
}

func podRequest(t *testing.T, k *ecdsa.PrivateKey) *certificatesv1.PodCertificateRequest {
	t.Helper()
	r := &certificatesv1.PodCertificateRequest{Spec: certificatesv1.PodCertificateRequestSpec{
		SignerName: "example.com/s", PodName: "p", PodUID: "1", ServiceAccountName: "s", ServiceAccountUID: "2", NodeName: "n", NodeUID: "3",
		StubPKCS10Request: request(t, k),
	}}
	podCertificateRequest().Versions[0].Default(r)
	return r
}

func TestPodRequest(t *testing.T) {
	r := podRequest(t, key(t))
	kindtest.Expect(t, kindtest.Messages(validatePodRequest(r)))
	seconds := int32(5)
	r.Spec.MaxExpirationSeconds, r.Spec.NodeUID, r.Spec.StubPKCS10Request = &seconds, "", []byte("AAA")
	kindtest.Expect(t, kindtest.Messages(validatePodRequest(r)),
		`spec.nodeUID: Invalid value: "": must not be empty`,
		"spec.maxExpirationSeconds: Invalid value: 5: must be in the range [3600, 7862400]",
		"spec.stubPKCS10Request: Invalid value: must be a valid PKCS#10 CSR")
}

func TestPodRequestIssued(t *testing.T) {
	k := key(t)
	old := podRequest(t, k)
	from := time.Now().Truncate(time.Second)
	r := old.DeepCopy()
	r.Status = certificatesv1.PodCertificateRequestStatus{
		Conditions: []metav1.Condition{{Type: certificatesv1.PodCertificateRequestConditionTypeIssued, Status: metav1.ConditionTrue,
			Reason: "R", LastTransitionTime: metav1.NewTime(from)}},
		CertificateChain: certificate(t, k, false, from, from.Add(2*time.Hour)),
		NotBefore:        &metav1.Time{Time: from}, NotAfter: &metav1.Time{Time: from.Add(2 * time.Hour)}, BeginRefreshAt: &metav1.Time{Time: from.Add(time.Hour)},
	}
	kindtest.Expect(t, kindtest.Messages(validatePodRequestStatus(r, old)))

	other := r.DeepCopy()
	other.Status.CertificateChain = certificate(t, key(t), false, from, from.Add(2*time.Hour))
	if errs := validatePodRequestStatus(other, old); len(errs) != 1 || errs[0].Detail != "leaf certificate was not issued to the requested public key" {
		t.Errorf("another's key: %v", errs)
	}
	late := r.DeepCopy()
	late.Status.BeginRefreshAt = &metav1.Time{Time: from.Add(3 * time.Hour)}
	if errs := validatePodRequestStatus(late, old); len(errs) != 1 || errs[0].Field != "status.beginRefreshAt" {
		t.Errorf("late refresh: %v", errs)
	}
	kindtest.Expect(t, kindtest.Messages(validatePodRequestStatus(late, r)), "status: Invalid value: immutable after PodCertificateRequest is issued, denied, or failed")
}

func FuzzDecoders(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := field.NewPath("x")
		if len(validateAnchors(string(data), path)) == 0 && checkCertificate(data) != nil {
			t.Errorf("a trust bundle that is no certificate: %q", data)
		}
		validateStub(data, path)
		if err := checkRequest(data); err == nil && checkCertificate(data) == nil {
			t.Errorf("a request that is a certificate: %q", data)
		}
	})
}
