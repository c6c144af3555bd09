// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/mail"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/rule"
)

const (
	maxKeySize           = 10 << 10
	maxChainSize         = 100 << 10
	minExpiration        = 3600
	maxExpiration        = 91 * 24 * 3600
	maxKubernetesExpires = 24 * 3600
	maxUIDLength         = 128
)

func validatePodRequest(r *certificatesv1.PodCertificateRequest) field.ErrorList {
	path := field.NewPath("spec")
	s := &r.Spec
	errs := validateSigner(s.SignerName, path.Child("signerName"))
	if s.UnverifiedUserAnnotations != nil {
		errs = append(errs, rule.UserAnnotations(s.UnverifiedUserAnnotations, path.Child("unverifiedUserAnnotations"))...)
	}
	errs = append(errs, rule.Subdomain(s.PodName, path.Child("podName"))...)
	errs = append(errs, validateUID(s.PodUID, path.Child("podUID"))...)
	errs = append(errs, rule.Subdomain(s.ServiceAccountName, path.Child("serviceAccountName"))...)
	errs = append(errs, validateUID(s.ServiceAccountUID, path.Child("serviceAccountUID"))...)
	errs = append(errs, rule.Subdomain(string(s.NodeName), path.Child("nodeName"))...)
	errs = append(errs, validateUID(s.NodeUID, path.Child("nodeUID"))...)
	where := path.Child("maxExpirationSeconds")
	if s.MaxExpirationSeconds == nil {
		return append(errs, field.Required(where, "must be set"))
	}
	longest := int32(maxExpiration)
	if ofKubernetes(s.SignerName) {
		longest = maxKubernetesExpires
	}
	if n := *s.MaxExpirationSeconds; n < minExpiration || n > longest {
		errs = append(errs, field.Invalid(where, n, fmt.Sprintf("must be in the range [%d, %d]", minExpiration, longest)))
	}
	if len(s.StubPKCS10Request) > 0 {
		return append(errs, validateStub(s.StubPKCS10Request, path.Child("stubPKCS10Request"))...)
	}
	return append(errs, field.Invalid(path, field.OmitValueType{}, "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set"))
}

func validateUID(uid types.UID, path *field.Path) field.ErrorList {
	switch {
	case uid == "":
		return field.ErrorList{field.Invalid(path, uid, "must not be empty")}
	case len(uid) > maxUIDLength:
		return field.ErrorList{field.TooLong(path, uid, maxUIDLength)}
	}
	return nil
}

// validateKey accepts the kinds and sizes of public keys that pods may use.
func validateKey(key any, path *field.Path) *field.Error {
	switch k := key.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return field.Invalid(path, "curve "+k.Curve.Params().Name, "elliptic public keys must use curve P256, P384, or P521")
		}
	case *rsa.PublicKey:
		if bits := k.Size() * 8; bits != 3072 && bits != 4096 {
			return field.Invalid(path, fmt.Sprintf("%d-bit modulus", bits), "RSA keys must have modulus size 3072 or 4096")
		}
	default:
		return field.Invalid(path, field.OmitValueType{}, "unknown public key type; supported types are Ed25519, ECDSA, and RSA")
	}
	return nil
}

func validateStub(der []byte, path *field.Path) field.ErrorList {
	if len(der) > maxKeySize {
		return field.ErrorList{field.TooLong(path, der, maxKeySize)}
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, "must be a valid PKCS#10 CSR")}
	}
	if err := validateKey(request.PublicKey, path); err != nil {
		return field.ErrorList{err}
	}
	if request.CheckSignature() != nil {
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, "invalid signature")}
	}
	return nil
}

func has(r *certificatesv1.PodCertificateRequest, types ...string) bool {
	for _, c := range r.Status.Conditions {
		for _, t := range types {
			if c.Type == t && c.Status == metav1.ConditionTrue {
				return true
			}
		}
	}
	return false
}

func validatePodRequestStatus(r, old *certificatesv1.PodCertificateRequest) field.ErrorList {
	const issued, denied, failed = certificatesv1.PodCertificateRequestConditionTypeIssued,
		certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed
	path := field.NewPath("status")
	var errs field.ErrorList
	known := 0
	for i, c := range r.Status.Conditions {
		// The index is a segment of its own in the paths clients know.
		where := field.NewPath("status", "conditions", fmt.Sprintf("[%d]", i))
		switch c.Type {
		case issued, denied, failed:
			if known++; known > 1 {
				errs = append(errs, field.Invalid(where.Child("type"), c.Type, `There may be at most one condition with type "Issued", "Denied", or "Failed"`))
			}
			if c.Status != metav1.ConditionTrue {
				errs = append(errs, field.NotSupported(where.Child("status"), c.Status, []metav1.ConditionStatus{metav1.ConditionTrue}))
			}
		default:
			errs = append(errs, field.NotSupported(where.Child("type"), c.Type, []string{issued, denied, failed}))
		}
	}
	errs = append(errs, metavalidation.ValidateConditions(r.Status.Conditions, path.Child("conditions"))...)
	if len(errs) > 0 {
		return errs
	}
	same := func(status, want certificatesv1.PodCertificateRequestStatus, detail string) field.ErrorList {
		if apiequality.Semantic.DeepEqual(status, want) {
			return nil
		}
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, detail)}
	}
	switch {
	case has(old, issued, denied, failed):
		return same(r.Status, old.Status, "immutable after PodCertificateRequest is issued, denied, or failed")
	case has(r, denied, failed):
		return same(r.Status, certificatesv1.PodCertificateRequestStatus{Conditions: r.Status.Conditions},
			"non-condition status fields must be empty when denying or failing the PodCertificateRequest")
	case has(r, issued):
		return validateIssued(r, old)
	}
	return same(r.Status, old.Status, `status is immutable unless transitioning to "Issued", "Denied", or "Failed"`)
}

// validateIssued checks a certificate against what was asked for, and stops at
// the first step that fails.
func validateIssued(r, old *certificatesv1.PodCertificateRequest) field.ErrorList {
	chain := field.NewPath("status", "certificateChain")
	text := r.Status.CertificateChain
	invalid := func(value any, detail string) field.ErrorList {
		return field.ErrorList{field.Invalid(chain, value, detail)}
	}
	if len(text) > maxChainSize {
		return field.ErrorList{field.TooLong(chain, text, maxChainSize)}
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil {
		return invalid(text, "issued certificate chain must contain at least one certificate")
	}
	if block.Type != "CERTIFICATE" {
		return invalid(text, "issued certificate chain must consist entirely of CERTIFICATE PEM blocks")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return invalid(text, "leaf certificate does not parse as valid X.509")
	}
	errs := validateLeafNames(leaf, chain)
	key, keyErr := requestedKey(&old.Spec)
	if keyErr != nil {
		return append(errs, keyErr)
	}
	if k, ok := key.(interface{ Equal(crypto.PublicKey) bool }); ok && !k.Equal(leaf.PublicKey) {
		return append(errs, invalid(text, "leaf certificate was not issued to the requested public key")...)
	}
	if errs = append(errs, validateTimes(r, leaf, chain, len(errs) > 0)...); len(errs) > 0 {
		return errs
	}
	for block, rest = pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return invalid(text, "issued certificate chain must consist entirely of CERTFICATE PEM blocks")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return invalid(text, "intermediate certificate does not parse as valid X.509")
		}
	}
	return nil
}

func validateLeafNames(leaf *x509.Certificate, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range leaf.DNSNames {
		if name == "" {
			errs = append(errs, field.Invalid(path, name, "leaf certificate should not contain empty DNSName"))
		}
		if strings.Contains(name, "..") {
			errs = append(errs, field.Invalid(path, name, "leaf certificate's DNSName should not contain '..'"))
		}
		if strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") {
			errs = append(errs, field.Invalid(path, name, "leaf certificate's DNSName should not start or end with '.'"))
		}
	}
	for _, address := range leaf.EmailAddresses {
		if _, err := mail.ParseAddress(address); err != nil {
			errs = append(errs, field.Invalid(path, address, "leaf certificate should not contain invalid EmailAddress"))
		}
	}
	return errs
}

func requestedKey(spec *certificatesv1.PodCertificateRequestSpec) (any, *field.Error) {
	request, err := x509.ParseCertificateRequest(spec.StubPKCS10Request)
	if err != nil {
		return nil, field.Invalid(field.NewPath("spec", "stubPKCS10Request"), field.OmitValueType{}, "must be a valid PKCS#10 CSR")
	}
	return request.PublicKey, nil
}

// validateTimes compares the times told with those in the certificate; failed
// says that errors were found before, so that only absent ones are added.
func validateTimes(r *certificatesv1.PodCertificateRequest, leaf *x509.Certificate, chain *field.Path, failed bool) field.ErrorList {
	path := field.NewPath("status")
	s := &r.Status
	var errs field.ErrorList
	for _, f := range []struct {
		name, detail string
		value        *metav1.Time
	}{
		{"notBefore", "must be present and consistent with the issued certificate", s.NotBefore},
		{"notAfter", "must be present and consistent with the issued certificate", s.NotAfter},
		{"beginRefreshAt", "must be present and in the range [notbefore+10min, notafter-10min]", s.BeginRefreshAt},
	} {
		if f.value == nil {
			errs = append(errs, field.Required(path.Child(f.name), f.detail))
		}
	}
	if failed || len(errs) > 0 {
		return errs
	}
	one := func(p *field.Path, value any, detail string) field.ErrorList {
		return field.ErrorList{field.Invalid(p, value, detail)}
	}
	notBefore, notAfter, refresh := path.Child("notBefore"), path.Child("notAfter"), path.Child("beginRefreshAt")
	lifetime := leaf.NotAfter.Sub(leaf.NotBefore)
	switch skew := time.Until(s.NotBefore.Time); {
	case !s.NotBefore.Time.Equal(leaf.NotBefore):
		return one(notBefore, s.NotBefore.Time, "must be set to the NotBefore time encoded in the leaf certificate")
	case skew <= -5*time.Minute || skew >= 5*time.Minute:
		return one(notBefore, s.NotBefore.Time, "must be set to within 5 minutes of kube-apiserver's current time")
	case !s.NotAfter.Time.Equal(leaf.NotAfter):
		return one(notAfter, s.NotAfter.Time, "must be set to the NotAfter time encoded in the leaf certificate")
	case lifetime < time.Hour:
		return one(chain, lifetime, "leaf certificate lifetime must be >= 1 hour")
	case r.Spec.MaxExpirationSeconds != nil && lifetime > time.Duration(*r.Spec.MaxExpirationSeconds)*time.Second:
		return one(chain, lifetime, fmt.Sprintf("leaf certificate lifetime must be <= spec.maxExpirationSeconds (%v)", *r.Spec.MaxExpirationSeconds))
	case s.BeginRefreshAt.Time.Before(s.NotBefore.Add(10 * time.Minute)):
		return one(refresh, s.BeginRefreshAt.Time, "must be at least 10 minutes after status.notBefore")
	case s.BeginRefreshAt.Time.After(s.NotAfter.Add(-10 * time.Minute)):
		return one(refresh, s.BeginRefreshAt.Time, "must be at least 10 minutes before status.notAfter")
	}
	return nil
}

// shownRequest is a spec as the reference shows it in an error: with the fields
// that version v1 has no longer.
func shownRequest(s *certificatesv1.PodCertificateRequestSpec) any {
	return struct {
		SignerName                string
		PodName                   string
		PodUID                    types.UID
		ServiceAccountName        string
		ServiceAccountUID         types.UID
		NodeName                  types.NodeName
		NodeUID                   types.UID
		MaxExpirationSeconds      *int32
		PKIXPublicKey             []byte
		ProofOfPossession         []byte
		StubPKCS10Request         []byte
		UnverifiedUserAnnotations map[string]string
	}{
		s.SignerName, s.PodName, s.PodUID, s.ServiceAccountName, s.ServiceAccountUID, s.NodeName, s.NodeUID,
		s.MaxExpirationSeconds, nil, nil, s.StubPKCS10Request, s.UnverifiedUserAnnotations,
	}
}
