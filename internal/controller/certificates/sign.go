// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/pki"
)

const (
	// backdate tolerates clocks that run behind.
	backdate = 5 * time.Minute
	// shortLife is a life that is not cut at its end for the backdating.
	shortLife = 8 * time.Hour
	// minLife is the shortest life that is given.
	minLife = 10 * time.Minute
	// defaultLife is the longest without a word about it.
	defaultLife = 365 * 24 * time.Hour
)

// Signers are the names that can be signed for.
func Signers() []string {
	return []string{certificatesv1.KubeAPIServerClientSignerName, certificatesv1.KubeAPIServerClientKubeletSignerName,
		certificatesv1.KubeletServingSignerName, certificatesv1beta1.LegacyUnknownSignerName}
}

// SignerConfig says what the signer works with.
type SignerConfig struct {
	Client client.Interface
	// Authorities sign, each for the signer it is named by.
	Authorities map[string]*pki.CA
	// Life bounds what is signed; a year when zero.
	Life   time.Duration
	Logger *slog.Logger
}

// NewSigner returns the controller that signs approved requests.
func NewSigner(config SignerConfig) *Controller {
	if config.Life == 0 {
		config.Life = defaultLife
	}
	c := newController(config.Client, config.Logger)
	c.handle = func(ctx context.Context, r *certificatesv1.CertificateSigningRequest) error {
		ca := config.Authorities[r.Spec.SignerName]
		if ca == nil || len(r.Status.Certificate) > 0 || !approved(r) || has(r, certificatesv1.CertificateFailed) {
			return nil
		}
		x, err := parse(r.Spec.Request)
		if err != nil {
			return fmt.Errorf("unable to parse csr %q: %w", r.Name, err)
		}
		next := r.DeepCopy()
		if err := judge(r, x); err != nil {
			failed := condition(certificatesv1.CertificateFailed, "SignerValidationFailure", err.Error())
			failed.LastUpdateTime = metav1.Now()
			next.Status.Conditions = append(next.Status.Conditions, failed)
		} else if next.Status.Certificate, err = sign(ca, x, &r.Spec, config.Life); err != nil {
			return fmt.Errorf("error auto signing csr: %w", err)
		}
		_, err = c.requests.UpdateStatus(ctx, next)
		return err
	}
	return c
}

// sign returns the certificate, PEM encoded.
func sign(ca *pki.CA, x *x509.CertificateRequest, spec *certificatesv1.CertificateSigningRequestSpec, longest time.Duration) ([]byte, error) {
	if err := x.CheckSignature(); err != nil {
		return nil, fmt.Errorf("unable to verify certificate request signature: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, err
	}
	now, life := time.Now(), longest
	if spec.ExpirationSeconds != nil {
		life = min(max(time.Duration(*spec.ExpirationSeconds)*time.Second, minLife), longest)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: x.Subject, DNSNames: x.DNSNames, IPAddresses: x.IPAddresses, EmailAddresses: x.EmailAddresses, URIs: x.URIs,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(life), BasicConstraintsValid: true,
	}
	if life >= shortLife {
		template.NotAfter = template.NotAfter.Add(-backdate)
	}
	end := ca.Certificate().NotAfter
	if !now.Before(end) {
		return nil, fmt.Errorf("the signer has expired: NotAfter=%v", end)
	}
	if template.NotAfter.After(end) {
		template.NotAfter = end
	}
	if err := use(template, spec.Usages); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Certificate(), x.PublicKey, ca.Signer())
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// use sets the usages of a certificate.
func use(template *x509.Certificate, usages []certificatesv1.KeyUsage) error {
	keys := map[certificatesv1.KeyUsage]x509.KeyUsage{
		certificatesv1.UsageSigning: x509.KeyUsageDigitalSignature, certificatesv1.UsageDigitalSignature: x509.KeyUsageDigitalSignature,
		certificatesv1.UsageContentCommitment: x509.KeyUsageContentCommitment, certificatesv1.UsageKeyEncipherment: x509.KeyUsageKeyEncipherment,
		certificatesv1.UsageKeyAgreement: x509.KeyUsageKeyAgreement, certificatesv1.UsageDataEncipherment: x509.KeyUsageDataEncipherment,
		certificatesv1.UsageCertSign: x509.KeyUsageCertSign, certificatesv1.UsageCRLSign: x509.KeyUsageCRLSign,
		certificatesv1.UsageEncipherOnly: x509.KeyUsageEncipherOnly, certificatesv1.UsageDecipherOnly: x509.KeyUsageDecipherOnly,
	}
	extended := map[certificatesv1.KeyUsage]x509.ExtKeyUsage{
		certificatesv1.UsageAny: x509.ExtKeyUsageAny, certificatesv1.UsageServerAuth: x509.ExtKeyUsageServerAuth, certificatesv1.UsageClientAuth: x509.ExtKeyUsageClientAuth,
		certificatesv1.UsageCodeSigning: x509.ExtKeyUsageCodeSigning, certificatesv1.UsageEmailProtection: x509.ExtKeyUsageEmailProtection,
		certificatesv1.UsageSMIME: x509.ExtKeyUsageEmailProtection, certificatesv1.UsageIPsecEndSystem: x509.ExtKeyUsageIPSECEndSystem,
		certificatesv1.UsageIPsecTunnel: x509.ExtKeyUsageIPSECTunnel, certificatesv1.UsageIPsecUser: x509.ExtKeyUsageIPSECUser,
		certificatesv1.UsageTimestamping: x509.ExtKeyUsageTimeStamping, certificatesv1.UsageOCSPSigning: x509.ExtKeyUsageOCSPSigning,
		certificatesv1.UsageMicrosoftSGC: x509.ExtKeyUsageMicrosoftServerGatedCrypto, certificatesv1.UsageNetscapeSGC: x509.ExtKeyUsageNetscapeServerGatedCrypto,
	}
	for _, u := range usages {
		if k, ok := keys[u]; ok {
			template.KeyUsage |= k
		} else if e, ok := extended[u]; ok {
			template.ExtKeyUsage = append(template.ExtKeyUsage, e)
		} else {
			return fmt.Errorf("unrecognized usage values: [%q]", string(u))
		}
	}
	return nil
}
