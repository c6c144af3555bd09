// SPDX-License-Identifier: Apache-2.0

package rule

import (
	"fmt"
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// SignerName checks the name of a certificate signer: a domain and a path.
func SignerName(name string, p *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	domain, path, found := strings.Cut(name, "/")
	if !found || strings.Contains(path, "/") {
		return field.ErrorList{field.Invalid(p, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")}
	}
	var errs field.ErrorList
	labels := func(value string, check func(string) []string) int {
		parts := strings.Split(value, ".")
		for _, label := range parts {
			for _, m := range check(label) {
				errs = append(errs, field.Invalid(p, value, fmt.Sprintf("validating label %q: %s", label, m)))
			}
		}
		return len(parts)
	}
	const maxDomain = validation.DNS1123SubdomainMaxLength
	if len(domain) > maxDomain {
		errs = append(errs, field.TooLong(p, domain, maxDomain))
	}
	if labels(domain, validation.IsDNS1123Label) < 2 {
		errs = append(errs, field.Invalid(p, domain, "should be a domain with at least two segments"))
	}
	labels(path, validation.IsDNS1123Subdomain)
	// The path holds a resource's name and its namespace, joined by a dot.
	const maxName = maxDomain + 1 + validation.DNS1123SubdomainMaxLength + 1 + validation.DNS1123LabelMaxLength
	if len(name) > maxName {
		errs = append(errs, field.TooLong(p, name, maxName))
	}
	return errs
}

// TrustBundleSigner is the signer that the name of a ClusterTrustBundle begins
// with, empty when it begins with none.
func TrustBundleSigner(name string) string {
	if i := strings.LastIndex(name, ":"); i >= 0 {
		return strings.ReplaceAll(name[:i], ":", "/")
	}
	return ""
}

// TrustBundleName checks the name of the ClusterTrustBundle of a signer, which
// may be none, or with prefix its generateName.
func TrustBundleName(signer, name string, prefix bool) []string {
	if signer == "" {
		if strings.Contains(name, ":") {
			return []string{`ClusterTrustBundle without signer name must not have ":" in its name`}
		}
		return apivalidation.NameIsDNSSubdomain(name, prefix)
	}
	required := strings.ReplaceAll(signer, "/", ":") + ":"
	rest, ok := strings.CutPrefix(name, required)
	if !ok {
		return []string{fmt.Sprintf("ClusterTrustBundle for signerName %s must be named with prefix %s", signer, required)}
	}
	return apivalidation.NameIsDNSSubdomain(rest, prefix)
}
