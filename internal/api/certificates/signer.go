// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateSigner checks a signer's name, such as "example.com/signer".
func validateSigner(name string, path *field.Path) field.ErrorList {
	const maxDomain = validation.DNS1123SubdomainMaxLength
	const maxPath = validation.DNS1123SubdomainMaxLength + validation.DNS1123LabelMaxLength + 1
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	parts := strings.Split(name, "/")
	if len(parts) != 2 {
		return field.ErrorList{field.Invalid(path, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")}
	}
	domain := parts[0]
	var errs field.ErrorList
	if len(domain) > maxDomain {
		errs = append(errs, field.TooLong(path, "", maxDomain))
	}
	labels := strings.Split(domain, ".")
	errs = append(errs, firstBadLabel(labels, domain, validation.IsDNS1123Label, path)...)
	if len(labels) < 2 {
		errs = append(errs, field.Invalid(path, domain, "should be a domain with at least two segments separated by dots"))
	}
	errs = append(errs, firstBadLabel(strings.Split(parts[1], "."), parts[1], validation.IsDNS1123Subdomain, path)...)
	if len(name) > maxDomain+maxPath+1 {
		errs = append(errs, field.TooLong(path, "", maxDomain+maxPath+1))
	}
	return errs
}

func firstBadLabel(labels []string, whole string, check func(string) []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, label := range labels {
		for _, message := range check(label) {
			errs = append(errs, field.Invalid(path, whole, fmt.Sprintf("validating label %q: %s", label, message)))
		}
		if len(errs) > 0 {
			break
		}
	}
	return errs
}

// ofKubernetes says whether the signer is one that the project defines.
func ofKubernetes(name string) bool {
	host, _, _ := strings.Cut(name, "/")
	return host == "kubernetes.io" || strings.HasSuffix(host, ".kubernetes.io")
}
