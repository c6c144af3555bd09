// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/badvalue"
	"kaji/internal/api/rule"
)

// projection checks the sources of one projected volume, whose files share one
// directory.
type projection struct {
	path    *field.Path
	options Options
	paths   sets.Set[string]
	errs    field.ErrorList
}

func (c *checker) validateProjected(s *corev1.ProjectedVolumeSource, p *field.Path) field.ErrorList {
	pr := &projection{path: p, options: c.options, paths: sets.New[string]()}
	pr.errs = validateMode(s.DefaultMode, p.Child("defaultMode"))
	for i := range s.Sources {
		pr.source(&s.Sources[i], p.Child("sources").Index(i))
	}
	return pr.errs
}

func (pr *projection) add(errs ...*field.Error) { pr.errs = append(pr.errs, errs...) }

// claim takes a path for the value shown in the error if it is taken already.
func (pr *projection) claim(path, value string) {
	if pr.paths.Has(path) {
		pr.add(field.Invalid(pr.path, value, "conflicting duplicate paths"))
	}
	pr.paths.Insert(path)
}

func (pr *projection) source(s *corev1.VolumeProjection, p *field.Path) {
	sources := 0
	if s.Secret != nil {
		sources++
		pr.keys(s.Secret.Name, s.Secret.Items, p.Child("secret"))
	}
	if s.ConfigMap != nil {
		sources++
		pr.keys(s.ConfigMap.Name, s.ConfigMap.Items, p.Child("configMap"))
	}
	if s.DownwardAPI != nil {
		sources++
		for i := range s.DownwardAPI.Items {
			item := &s.DownwardAPI.Items[i]
			pr.add(validateDownwardFile(item, p.Child("downwardAPI"))...)
			if item.Path != "" {
				pr.claim(item.Path, item.Path)
			}
		}
	}
	if s.ServiceAccountToken != nil {
		sources++
		pr.token(s.ServiceAccountToken, p.Child("serviceAccountToken"))
	}
	if s.ClusterTrustBundle != nil {
		sources++
		pr.trustBundle(s.ClusterTrustBundle, p.Child("clusterTrustBundle"))
	}
	if s.PodCertificate != nil {
		sources++
		pr.certificate(s.PodCertificate, p.Child("podCertificate"))
	}
	if sources > 1 {
		pr.add(field.Forbidden(p, "may not specify more than 1 volume type per source"))
	}
}

func (pr *projection) keys(name string, items []corev1.KeyToPath, p *field.Path) {
	pr.add(required(p, "name", name)...)
	for i := range items {
		pr.add(validateKeyToPath(&items[i], p.Child("items").Index(i))...)
		if items[i].Path != "" {
			pr.claim(items[i].Path, name)
		}
	}
}

func (pr *projection) token(s *corev1.ServiceAccountTokenProjection, p *field.Path) {
	if s.ExpirationSeconds != nil && *s.ExpirationSeconds < 10*60 {
		pr.add(field.Invalid(p.Child("expirationSeconds"), *s.ExpirationSeconds, "may not specify a duration less than 10 minutes"))
	}
	if s.ExpirationSeconds != nil && *s.ExpirationSeconds > 1<<32 {
		pr.add(field.Invalid(p.Child("expirationSeconds"), *s.ExpirationSeconds, "may not specify a duration larger than 2^32 seconds"))
	}
	if s.Path == "" {
		pr.add(field.Required(pr.path.Child("path"), ""))
	} else if !pr.options.NonLocalTokenPaths {
		pr.add(rule.NonReserved(s.Path, pr.path.Child("path"))...)
	}
}

func (pr *projection) trustBundle(s *corev1.ClusterTrustBundleProjection, p *field.Path) {
	switch {
	case s.Name != nil && s.SignerName != nil:
		pr.add(field.Invalid(p, badvalue.Of(s), "only one of name and signerName may be used"))
	case s.Name != nil:
		if *s.Name == "" {
			pr.add(field.Required(p.Child("name"), "must be a valid object name"))
		}
		for _, message := range rule.TrustBundleName(rule.TrustBundleSigner(*s.Name), *s.Name, false) {
			pr.add(field.Invalid(p.Child("name"), *s.Name, "not a valid clustertrustbundlename: "+message))
		}
		if s.LabelSelector != nil {
			pr.add(field.Invalid(p.Child("labelSelector"), s.LabelSelector, "labelSelector must be unset if name is specified"))
		}
	case s.SignerName != nil:
		if *s.SignerName == "" {
			pr.add(field.Required(p.Child("signerName"), "must be a valid signer name"))
		}
		pr.add(rule.SignerName(*s.SignerName, p.Child("signerName"))...)
		pr.add(metav1validation.ValidateLabelSelector(s.LabelSelector, metav1validation.LabelSelectorValidationOptions{}, p.Child("labelSelector"))...)
	default:
		pr.add(field.Required(p, "either name or signerName must be specified"))
	}
	pr.add(required(p, "path", s.Path)...)
	pr.add(rule.NonReserved(s.Path, p.Child("path"))...)
	pr.claim(s.Path, s.Path)
}

func (pr *projection) certificate(s *corev1.PodCertificateProjection, p *field.Path) {
	pr.add(rule.SignerName(s.SignerName, p.Child("signerName"))...)
	switch s.KeyType {
	case "RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519":
	default:
		pr.add(field.NotSupported(p.Child("keyType"), s.KeyType, []string{"RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"}))
	}
	if s.MaxExpirationSeconds != nil {
		if *s.MaxExpirationSeconds < 3600 {
			pr.add(field.Invalid(p.Child("maxExpirationSeconds"), *s.MaxExpirationSeconds, "if provided, maxExpirationSeconds must be >= 3600"))
		}
		limit := int32(91 * 24 * 60 * 60)
		if strings.HasPrefix(s.SignerName, "kubernetes.io/") {
			limit = 24 * 60 * 60
		}
		if *s.MaxExpirationSeconds > limit {
			pr.add(field.Invalid(p.Child("maxExpirationSeconds"), *s.MaxExpirationSeconds, fmt.Sprintf("if provided, maxExpirationSeconds must be <= %d", limit)))
		}
	}
	pr.add(rule.UserAnnotations(s.UserAnnotations, p.Child("userAnnotations"))...)
	files := 0
	for _, file := range []struct{ name, path string }{
		{"credentialBundlePath", s.CredentialBundlePath}, {"keyPath", s.KeyPath}, {"certificateChainPath", s.CertificateChainPath},
	} {
		if file.path == "" {
			continue
		}
		files++
		pr.add(rule.NonReserved(file.path, p.Child(file.name))...)
		pr.claim(file.path, file.path)
	}
	if files == 0 {
		pr.add(field.Required(p, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"))
	}
}
