// SPDX-License-Identifier: Apache-2.0

package certificates_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/certificates"
	"kaji/internal/pki"
)

// bench has requests.
type bench struct {
	*bubble.Bubble
	all client.Typed[*certificatesv1.CertificateSigningRequest]
	ca  *pki.CA
}

func run(t *testing.T, test func(b *bench)) {
	var ca *pki.CA
	start := func(api client.Interface) []bubble.Controller {
		// It is made here, within the bubble: its clock stands at the year 2000.
		var err error
		if ca, err = pki.EnsureCA(t.TempDir(), "ca", "test"); err != nil {
			t.Fatal(err)
		}
		authorities := map[string]*pki.CA{}
		for _, name := range certificates.Signers() {
			authorities[name] = ca
		}
		return []bubble.Controller{certificates.NewApprover(api, nil), certificates.NewCleaner(api, nil),
			certificates.NewSigner(certificates.SignerConfig{Client: api, Authorities: authorities, Life: 24 * time.Hour})}
	}
	bubble.RunAs(t, "certificate-controller", start, func(b *bubble.Bubble) {
		test(&bench{b, client.For[*certificatesv1.CertificateSigningRequest](b.API), ca})
	})
}

func (b *bench) request(name, signer string, subject pkix.Name, dns []string, seconds int32, usages ...certificatesv1.KeyUsage) {
	b.Helper()
	key := bubble.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(b.Bubble)
	der := bubble.Must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject, DNSNames: dns}, key))(b.Bubble)
	r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: certificatesv1.CertificateSigningRequestSpec{
		Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: signer, Usages: usages}}
	if seconds > 0 {
		r.Spec.ExpirationSeconds = &seconds
	}
	bubble.Must(b.all.Create(b.Context(), r))(b.Bubble)
	b.Settle()
}

func (b *bench) approve(name string) {
	b.Helper()
	r := bubble.Must(b.all.Get(b.Context(), "", name))(b.Bubble).DeepCopy()
	r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "R"})
	at := b.all.Resource("")
	at.Subresource = "approval"
	bubble.Must(b.API.Update(b.Context(), at, name, r, metav1.UpdateOptions{}))(b.Bubble)
	b.Settle()
}

func (b *bench) get(name string) *certificatesv1.CertificateSigningRequest {
	b.Helper()
	return bubble.Must(b.all.Get(b.Context(), "", name))(b.Bubble)
}

var node = pkix.Name{CommonName: "system:node:n", Organization: []string{"system:nodes"}}

func TestANodesRequestIsApprovedSignedAndCleaned(t *testing.T) {
	run(t, func(b *bench) {
		b.request("n", certificatesv1.KubeAPIServerClientKubeletSignerName, node, nil, 0, certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth)
		r := b.get("n")
		if len(r.Status.Conditions) != 1 || r.Status.Conditions[0].Reason != "AutoApproved" || r.Status.Conditions[0].Message != "Auto approving kubelet client certificate after SubjectAccessReview." {
			b.Fatalf("conditions %+v", r.Status.Conditions)
		}
		block, _ := pem.Decode(r.Status.Certificate)
		if block == nil {
			b.Fatal("no certificate")
		}
		cert := bubble.Must(x509.ParseCertificate(block.Bytes))(b.Bubble)
		if err := cert.CheckSignatureFrom(b.ca.Certificate()); err != nil || cert.Subject.CommonName != "system:node:n" || cert.IsCA ||
			len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || cert.NotAfter.Sub(cert.NotBefore) != 24*time.Hour {
			b.Errorf("certificate %+v, %v", cert, err)
		}
		b.Wait(time.Hour)
		if _, err := b.all.Get(b.Context(), "", "n"); !apierrors.IsNotFound(err) {
			b.Errorf("an hour later: %v", err)
		}
	})
}

func TestPodsRequestsGo(t *testing.T) {
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{certificates.NewPodRequestCleaner(api, nil)}
	}
	bubble.RunAs(t, "podcertificaterequestcleaner", start, func(b *bubble.Bubble) {
		all := client.For[*certificatesv1.PodCertificateRequest](b.API)
		key := bubble.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(b)
		stub := bubble.Must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key))(b)
		bubble.Must(all.Create(b.Context(), &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "r"},
			Spec: certificatesv1.PodCertificateRequestSpec{SignerName: "example.com/x", PodName: "p", PodUID: "u", ServiceAccountName: "default", ServiceAccountUID: "s",
				NodeName: "n", NodeUID: "m", StubPKCS10Request: stub}}))(b)
		b.Wait(14 * time.Minute)
		bubble.Must(all.Get(b.Context(), "default", "r"))(b)
		b.Wait(2 * time.Minute)
		if _, err := all.Get(b.Context(), "default", "r"); !apierrors.IsNotFound(err) {
			b.Errorf("a quarter of an hour later: %v", err)
		}
	})
}

func TestWhatIsNotSigned(t *testing.T) {
	run(t, func(b *bench) {
		someone := pkix.Name{CommonName: "someone"}
		b.request("client", certificatesv1.KubeAPIServerClientSignerName, someone, nil, 0, certificatesv1.UsageServerAuth)
		b.request("serving", certificatesv1.KubeletServingSignerName, node, nil, 0, certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth)
		b.request("other", "example.com/x", someone, nil, 0, certificatesv1.UsageClientAuth)
		for name, why := range map[string]string{"client": "invalid usage for client certificate: server auth", "serving": "DNS or IP subjectAltName is required", "other": ""} {
			if r := b.get(name); len(r.Status.Conditions) > 0 {
				b.Errorf("%s was judged before it was approved: %+v", name, r.Status.Conditions)
			}
			b.approve(name)
			r := b.get(name)
			if len(r.Status.Certificate) > 0 {
				b.Errorf("%s was signed", name)
			}
			if last := r.Status.Conditions[len(r.Status.Conditions)-1]; why != "" && (last.Type != certificatesv1.CertificateFailed || last.Reason != "SignerValidationFailure" || !strings.Contains(last.Message, why)) {
				b.Errorf("%s: %+v", name, last)
			}
		}
	})
}

func TestAShortLifeIsGiven(t *testing.T) {
	run(t, func(b *bench) {
		b.request("s", certificatesv1.KubeletServingSignerName, node, []string{"n"}, 3600, certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth)
		b.approve("s")
		block, _ := pem.Decode(b.get("s").Status.Certificate)
		if block == nil {
			b.Fatal("no certificate")
		}
		cert := bubble.Must(x509.ParseCertificate(block.Bytes))(b.Bubble)
		if cert.NotAfter.Sub(cert.NotBefore) != time.Hour+5*time.Minute || cert.DNSNames[0] != "n" {
			b.Errorf("from %v to %v for %v", cert.NotBefore, cert.NotAfter, cert.DNSNames)
		}
	})
}

func TestForgottenRequestsGoAfterADay(t *testing.T) {
	run(t, func(b *bench) {
		b.request("p", "example.com/x", pkix.Name{CommonName: "x"}, nil, 0, certificatesv1.UsageClientAuth)
		b.Wait(23 * time.Hour)
		b.get("p")
		b.Wait(time.Hour)
		if _, err := b.all.Get(b.Context(), "", "p"); !apierrors.IsNotFound(err) {
			b.Errorf("a day later: %v", err)
		}
	})
}
