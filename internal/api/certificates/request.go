// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const legacySigner = "kubernetes.io/legacy-unknown"

// usages are the key usages a request may name, sorted.
func usages() []certificatesv1.KeyUsage {
	return slices.Sorted(slices.Values([]certificatesv1.KeyUsage{
		certificatesv1.UsageSigning, certificatesv1.UsageDigitalSignature, certificatesv1.UsageContentCommitment,
		certificatesv1.UsageKeyEncipherment, certificatesv1.UsageKeyAgreement, certificatesv1.UsageDataEncipherment,
		certificatesv1.UsageCertSign, certificatesv1.UsageCRLSign, certificatesv1.UsageEncipherOnly,
		certificatesv1.UsageDecipherOnly, certificatesv1.UsageAny, certificatesv1.UsageServerAuth,
		certificatesv1.UsageClientAuth, certificatesv1.UsageCodeSigning, certificatesv1.UsageEmailProtection,
		certificatesv1.UsageSMIME, certificatesv1.UsageIPsecEndSystem, certificatesv1.UsageIPsecTunnel,
		certificatesv1.UsageIPsecUser, certificatesv1.UsageTimestamping, certificatesv1.UsageOCSPSigning,
		certificatesv1.UsageMicrosoftSGC, certificatesv1.UsageNetscapeSGC,
	}))
}

// validateRequest judges a request; what old had already may stand.
func validateRequest(r, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	if err := checkRequest(r.Spec.Request); err != nil {
		errs = append(errs, field.Invalid(path.Child("request"), r.Spec.Request, err.Error()))
	}
	if len(r.Spec.Usages) == 0 {
		errs = append(errs, field.Required(path.Child("usages"), ""))
	}
	if old == nil || len(unknownUsages(old.Spec.Usages, path)) == 0 {
		errs = append(errs, unknownUsages(r.Spec.Usages, path.Child("usages"))...)
	}
	if old == nil || len(duplicateUsages(old.Spec.Usages, path)) == 0 {
		errs = append(errs, duplicateUsages(r.Spec.Usages, path.Child("usages"))...)
	}
	if r.Spec.SignerName == legacySigner && (old == nil || old.Spec.SignerName != legacySigner) {
		errs = append(errs, field.Invalid(path.Child("signerName"), r.Spec.SignerName, "the legacy signerName is not allowed via this API version"))
	} else {
		errs = append(errs, validateSigner(r.Spec.SignerName, path.Child("signerName"))...)
	}
	if seconds := r.Spec.ExpirationSeconds; seconds != nil && *seconds < 600 {
		errs = append(errs, field.Invalid(path.Child("expirationSeconds"), *seconds, "may not specify a duration less than 600 seconds (10 minutes)"))
	}
	errs = append(errs, validateConditions(r, old, field.NewPath("status", "conditions"))...)
	stands := old != nil && (bytes.Equal(r.Status.Certificate, old.Status.Certificate) || checkCertificate(old.Status.Certificate) != nil)
	if !stands {
		if err := checkCertificate(r.Status.Certificate); err != nil {
			errs = append(errs, field.Invalid(field.NewPath("status", "certificate"), "<certificate data>", err.Error()))
		}
	}
	return errs
}

func checkRequest(text []byte) error {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return err
	}
	return request.CheckSignature()
}

func checkCertificate(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	blocks := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("only CERTIFICATE PEM blocks are allowed, found %q", block.Type)
		}
		if len(block.Headers) != 0 {
			return errors.New("no PEM block headers are permitted")
		}
		blocks++
		certificates, err := x509.ParseCertificates(block.Bytes)
		if err != nil {
			return err
		}
		if len(certificates) == 0 {
			return errors.New("found CERTIFICATE PEM block containing 0 certificates")
		}
	}
	if blocks == 0 {
		return errors.New("must contain at least one CERTIFICATE PEM block")
	}
	return nil
}

func unknownUsages(list []certificatesv1.KeyUsage, path *field.Path) field.ErrorList {
	known := usages()
	var errs field.ErrorList
	for i, u := range list {
		if !slices.Contains(known, u) {
			errs = append(errs, field.NotSupported(path.Index(i), u, known))
		}
	}
	return errs
}

func duplicateUsages(list []certificatesv1.KeyUsage, path *field.Path) field.ErrorList {
	seen := sets.New[certificatesv1.KeyUsage]()
	var errs field.ErrorList
	for i, u := range list {
		if seen.Has(u) {
			errs = append(errs, field.Duplicate(path.Index(i), u))
		}
		seen.Insert(u)
	}
	return errs
}

func validateConditions(r, old *certificatesv1.CertificateSigningRequest, path *field.Path) field.ErrorList {
	const approved, denied, failed = certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed
	var hadEmpty, hadDuplicate, hadBoth bool
	if old != nil {
		seen := sets.New[certificatesv1.RequestConditionType]()
		for _, c := range old.Status.Conditions {
			hadEmpty = hadEmpty || c.Type == ""
			hadDuplicate = hadDuplicate || seen.Has(c.Type)
			seen.Insert(c.Type)
		}
		hadBoth = seen.HasAll(approved, denied)
	}
	var errs field.ErrorList
	seen := sets.New[certificatesv1.RequestConditionType]()
	for i, c := range r.Status.Conditions {
		where := path.Index(i)
		if c.Type == "" && !hadEmpty {
			errs = append(errs, field.Required(where.Child("type"), ""))
		}
		allowed := []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown}
		if c.Type == approved || c.Type == denied || c.Type == failed {
			allowed = []corev1.ConditionStatus{corev1.ConditionTrue}
		}
		if c.Status == "" {
			errs = append(errs, field.Required(where.Child("status"), ""))
		} else if !slices.Contains(allowed, c.Status) {
			errs = append(errs, field.NotSupported(where.Child("status"), c.Status, allowed))
		}
		if !hadBoth && (c.Type == approved && seen.Has(denied) || c.Type == denied && seen.Has(approved)) {
			errs = append(errs, bothDecisions(path))
		}
		if seen.Has(c.Type) && !hadDuplicate {
			errs = append(errs, field.Duplicate(where.Child("type"), c.Type))
		}
		seen.Insert(c.Type)
	}
	return errs
}

// view says what the way an update comes may change.
type view struct{ approval, certificate bool }

func validateRequestUpdate(r, old *certificatesv1.CertificateSigningRequest, may view) field.ErrorList {
	errs := validateRequest(r, old)
	path := field.NewPath("status", "conditions")
	for _, t := range []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed} {
		before, now := conditionsOf(old, t), conditionsOf(r, t)
		switch judged := !may.approval && t != certificatesv1.CertificateFailed; {
		case len(now) < len(before):
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("updates may not remove a condition of type %q", t)))
		case judged && len(now) > len(before):
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("updates may not add a condition of type %q", t)))
		case judged && !apiequality.Semantic.DeepEqual(before, now):
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("updates may not modify a condition of type %q\n%v", t, diff.Diff(before, now))))
		}
	}
	if !bytes.Equal(r.Status.Certificate, old.Status.Certificate) {
		where := field.NewPath("status", "certificate")
		if !may.certificate {
			errs = append(errs, field.Forbidden(where, "updates may not set certificate content"))
		} else if len(old.Status.Certificate) > 0 {
			errs = append(errs, field.Forbidden(where, "updates may not modify existing certificate content"))
		}
	}
	return errs
}

// bothDecisions refuses a request that is approved and denied, as upstream's
// rules for unions word it.
func bothDecisions(path *field.Path) *field.Error {
	const yes, no = `conditions[{"type": "Approved"}]`, `conditions[{"type": "Denied"}]`
	return field.Invalid(path, "{"+yes+", "+no+"}", "must specify at most one of: `"+yes+"`, `"+no+"`")
}
