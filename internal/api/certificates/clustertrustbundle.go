// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

const maxTrustBundleSize = 1 << 20

func clusterTrustBundle() *api.Kind {
	return &api.Kind{
		Group: certificatesv1.GroupName, Name: "ClusterTrustBundle", Resource: "clustertrustbundles", Singular: "clustertrustbundle",
		Versions: []api.Version{{
			GroupVersion: certificatesv1.SchemeGroupVersion,
			New:          api.New[certificatesv1.ClusterTrustBundle], NewList: api.NewList[certificatesv1.ClusterTrustBundleList],
		}},
		Storage: certificatesv1.SchemeGroupVersion,
		Prefix:  "/registry/clustertrustbundles",
		New:     api.New[certificatesv1.ClusterTrustBundle], NewList: api.NewList[certificatesv1.ClusterTrustBundleList],
		Rules: api.For[*certificatesv1.ClusterTrustBundle]{
			// Which names are good depends on the signer: Validate knows.
			ValidateName: func(string, bool) []string { return nil },
			Validate: func(b *certificatesv1.ClusterTrustBundle) field.ErrorList {
				return append(validateBundle(b), validateAnchors(b.Spec.TrustBundle, field.NewPath("spec", "trustBundle"))...)
			},
			ValidateUpdate: func(b, old *certificatesv1.ClusterTrustBundle) field.ErrorList {
				errs := validateBundle(b)
				if b.Spec.TrustBundle != old.Spec.TrustBundle {
					errs = append(errs, validateAnchors(b.Spec.TrustBundle, field.NewPath("spec", "trustBundle"))...)
				}
				return append(errs, apivalidation.ValidateImmutableField(b.Spec.SignerName, old.Spec.SignerName, field.NewPath("spec", "signerName"))...)
			},
			Fields: func(b *certificatesv1.ClusterTrustBundle) fields.Set {
				return fields.Set{"spec.signerName": b.Spec.SignerName}
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("SignerName", certificatesv1.ClusterTrustBundleSpec{}.SwaggerDoc()["signerName"]),
			},
			Cells: func(b *certificatesv1.ClusterTrustBundle) []any {
				if b.Spec.SignerName == "" {
					return []any{b.Name, "<none>"}
				}
				return []any{b.Name, b.Spec.SignerName}
			},
		}.Rules(),
	}
}

func validateBundle(b *certificatesv1.ClusterTrustBundle) field.ErrorList {
	path := field.NewPath("metadata")
	var errs field.ErrorList
	if b.GenerateName != "" {
		errs = append(errs, rule.Messages(path.Child("generateName"), b.GenerateName, bundleNameErrors(b.GenerateName, b.Spec.SignerName, true))...)
	}
	if b.Name != "" {
		errs = append(errs, rule.Messages(path.Child("name"), b.Name, bundleNameErrors(b.Name, b.Spec.SignerName, false))...)
	}
	if b.Spec.SignerName != "" {
		errs = append(errs, validateSigner(b.Spec.SignerName, field.NewPath("spec", "signerName"))...)
	}
	return errs
}

func bundleNameErrors(name, signer string, prefix bool) []string {
	if signer == "" {
		if strings.Contains(name, ":") {
			return []string{`ClusterTrustBundle without signer name must not have ":" in its name`}
		}
		return apivalidation.NameIsDNSSubdomain(name, prefix)
	}
	want := strings.ReplaceAll(signer, "/", ":") + ":"
	if !strings.HasPrefix(name, want) {
		return []string{fmt.Sprintf("ClusterTrustBundle for signerName %s must be named with prefix %s", signer, want)}
	}
	return apivalidation.NameIsDNSSubdomain(strings.TrimPrefix(name, want), prefix)
}

// validateAnchors requires one CA certificate or more, none twice.
func validateAnchors(bundle string, path *field.Path) field.ErrorList {
	if len(bundle) > maxTrustBundleSize {
		return field.ErrorList{field.TooLong(path, "", maxTrustBundleSize)}
	}
	var errs field.ErrorList
	invalid := func(format string, args ...any) {
		errs = append(errs, field.Invalid(path, "<value omitted>", fmt.Sprintf(format, args...)))
	}
	indices := map[string][]int{}
	var order []string
	i := -1
	for block, rest := pem.Decode([]byte(bundle)); block != nil; block, rest = pem.Decode(rest) {
		i++
		if message := anchorError(block); message != "" {
			invalid("entry %d %s", i, message)
			continue
		}
		key := string(block.Bytes)
		if len(indices[key]) == 0 {
			order = append(order, key)
		}
		indices[key] = append(indices[key], i)
	}
	if len(errs) > 0 {
		return errs
	}
	if len(order) == 0 {
		invalid("at least one trust anchor must be provided")
	}
	for _, key := range order {
		if len(indices[key]) > 1 {
			invalid("duplicate trust anchor (indices %v)", indices[key])
		}
	}
	return errs
}

func anchorError(block *pem.Block) string {
	if block.Type != "CERTIFICATE" {
		return "has bad block type: " + block.Type
	}
	if len(block.Headers) != 0 {
		return "has PEM block headers"
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	switch {
	case err != nil:
		return "does not parse as X.509"
	case !certificate.IsCA:
		return "does not have the CA bit set"
	case !certificate.BasicConstraintsValid:
		return "has invalid basic constraints"
	}
	return ""
}
