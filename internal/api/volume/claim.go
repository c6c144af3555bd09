// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/rule"
)

// DefaultClaim fills in the defaults of a claim that stands in a template.
func DefaultClaim(claim *corev1.PersistentVolumeClaim) {
	DefaultClaimSpec(&claim.Spec)
	if claim.Status.Phase == "" {
		claim.Status.Phase = corev1.ClaimPending
	}
	rule.RoundUp(claim.Status.Capacity)
	rule.RoundUp(claim.Status.AllocatedResources)
}

// DefaultClaimSpec fills in the defaults of a claim's spec.
func DefaultClaimSpec(spec *corev1.PersistentVolumeClaimSpec) {
	if spec.VolumeMode == nil {
		mode := corev1.PersistentVolumeFilesystem
		spec.VolumeMode = &mode
	}
	rule.RoundUp(spec.Resources.Limits)
	rule.RoundUp(spec.Resources.Requests)
}

// NormalizeClaim drops what dataSource alone may not name, as old clients
// expect, and copies dataSource to dataSourceRef or back where one of them is
// missing (KEP 1495). old is the spec before an update, or nil.
func NormalizeClaim(spec, old *corev1.PersistentVolumeClaimSpec) {
	if ref := spec.DataSourceRef; ref != nil && ref.Namespace != nil && *ref.Namespace != "" &&
		(old == nil || old.DataSourceRef == nil) {
		spec.DataSourceRef = nil // other namespaces are behind the gate CrossNamespaceVolumeDataSource
	}
	used := old != nil && (old.DataSource != nil || old.DataSourceRef != nil)
	if !used && spec.DataSourceRef == nil && !populates(spec.DataSource) {
		spec.DataSource = nil
	}
	if ref := spec.DataSourceRef; ref != nil && ref.Namespace != nil && *ref.Namespace != "" {
		return
	}
	switch source, ref := spec.DataSource, spec.DataSourceRef; {
	case source != nil && ref == nil:
		spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: copied(source.APIGroup), Kind: source.Kind, Name: source.Name}
	case source == nil && ref != nil:
		spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: copied(ref.APIGroup), Kind: ref.Kind, Name: ref.Name}
	}
}

// populates says whether dataSource itself, not dataSourceRef, may name source.
func populates(source *corev1.TypedLocalObjectReference) bool {
	if source == nil {
		return false
	}
	group := ""
	if source.APIGroup != nil {
		group = *source.APIGroup
	}
	return source.Kind == "PersistentVolumeClaim" && group == "" ||
		source.Kind == "VolumeSnapshot" && group == "snapshot.storage.k8s.io"
}

func copied(s *string) *string {
	if s == nil {
		return nil
	}
	out := *s
	return &out
}

// ClaimOptions loosen the check of a claim's spec for what was already stored.
type ClaimOptions struct {
	// InvalidSelectorValues lets label values through that no label can have.
	InvalidSelectorValues bool
	// InvalidSourceGroups lets API groups of data sources through that are no DNS names.
	InvalidSourceGroups bool
}

// ClaimOptionsFor are the options for a claim whose spec was old, or nil.
func ClaimOptionsFor(old *corev1.PersistentVolumeClaimSpec) ClaimOptions {
	if old == nil {
		return ClaimOptions{}
	}
	return ClaimOptions{
		InvalidSelectorValues: len(metav1validation.ValidateLabelSelector(old.Selector, metav1validation.LabelSelectorValidationOptions{}, nil)) > 0,
		InvalidSourceGroups: old.DataSource != nil && old.DataSource.APIGroup != nil ||
			old.DataSourceRef != nil && old.DataSourceRef.APIGroup != nil,
	}
}

// ValidateClaimTemplate checks the claim that a generic ephemeral volume makes.
func ValidateClaimTemplate(template *corev1.PersistentVolumeClaimTemplate, p *field.Path, options ClaimOptions) field.ErrorList {
	errs := rule.TemplateMeta(template.ObjectMeta, p.Child("metadata"))
	return append(errs, ValidateClaimSpec(&template.Spec, p.Child("spec"), options)...)
}

// LowerFirst turns the Go name of a field into the name errors use.
func LowerFirst(name string) string { return rule.LowerFirst(name) }

// ValidateClaimSpec checks the spec of a claim.
func ValidateClaimSpec(spec *corev1.PersistentVolumeClaimSpec, p *field.Path, options ClaimOptions) field.ErrorList {
	var errs field.ErrorList
	if len(spec.AccessModes) == 0 {
		errs = append(errs, field.Required(p.Child("accessModes"), "at least 1 access mode is required"))
	}
	if spec.Selector != nil {
		errs = append(errs, metav1validation.ValidateLabelSelector(spec.Selector, metav1validation.LabelSelectorValidationOptions{
			AllowInvalidLabelValueInSelector: options.InvalidSelectorValues,
		}, p.Child("selector"))...)
	}
	errs = append(errs, validateAccessModes(spec.AccessModes, p.Child("accessModes"))...)

	storage := p.Child("resources").Key(string(corev1.ResourceStorage))
	if size, ok := spec.Resources.Requests[corev1.ResourceStorage]; !ok {
		errs = append(errs, field.Required(storage, ""))
	} else if tooSmall := rule.Positive(size, storage); len(tooSmall) > 0 {
		errs = append(errs, tooSmall...)
	} else {
		errs = append(errs, rule.Quantity(corev1.ResourceStorage, size, storage)...)
	}

	if name := spec.StorageClassName; name != nil && *name != "" {
		errs = append(errs, rule.Messages(p.Child("storageClassName"), *name, apivalidation.NameIsDNSSubdomain(*name, false))...)
	}
	if spec.VolumeMode != nil {
		errs = append(errs, validateVolumeMode(*spec.VolumeMode, p.Child("volumeMode"))...)
	}
	errs = append(errs, validateDataSources(spec, p, options)...)
	if name := spec.VolumeAttributesClassName; name != nil && *name != "" {
		errs = append(errs, rule.Messages(p.Child("volumeAttributesClassName"), *name, apivalidation.NameIsDNSSubdomain(*name, false))...)
	}
	return errs
}

func validateAccessModes(modes []corev1.PersistentVolumeAccessMode, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	var oncePod, other bool
	for _, mode := range modes {
		invalid := rule.OneOf(mode, p, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)
		errs = append(errs, invalid...)
		if mode == corev1.ReadWriteOncePod {
			oncePod = true
		} else if len(invalid) == 0 {
			other = true
		}
	}
	if oncePod && other {
		errs = append(errs, field.Forbidden(p, "may not use ReadWriteOncePod with other access modes"))
	}
	return errs
}

func validateVolumeMode(mode corev1.PersistentVolumeMode, p *field.Path) field.ErrorList {
	return rule.OneOf(mode, p, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
}

func validateDataSources(spec *corev1.PersistentVolumeClaimSpec, p *field.Path, options ClaimOptions) field.ErrorList {
	var errs field.ErrorList
	source, ref := spec.DataSource, spec.DataSourceRef
	if source != nil {
		errs = append(errs, validateDataSource(source.APIGroup, source.Kind, source.Name, p.Child("dataSource"), options)...)
	}
	if ref == nil {
		return errs
	}
	refPath := p.Child("dataSourceRef")
	errs = append(errs, validateDataSource(ref.APIGroup, ref.Kind, ref.Name, refPath, options)...)
	if ref.Namespace != nil && *ref.Namespace != "" {
		errs = append(errs, rule.Messages(refPath.Child("namespace"), *ref.Namespace, apivalidation.ValidateNamespaceName(*ref.Namespace, false))...)
		if source != nil {
			errs = append(errs, field.Invalid(p, p.Child("dataSource"), "may not be specified when dataSourceRef.namespace is specified"))
		}
		return errs
	}
	if source != nil && !(reflect.DeepEqual(source.APIGroup, ref.APIGroup) && source.Kind == ref.Kind && source.Name == ref.Name) {
		errs = append(errs, field.Invalid(p, p.Child("dataSource"), "must match dataSourceRef"))
	}
	return errs
}

func validateDataSource(group *string, kind, name string, p *field.Path, options ClaimOptions) field.ErrorList {
	errs := required(p, "name", name, "kind", kind)
	if group == nil || *group == "" {
		if kind != "PersistentVolumeClaim" {
			errs = append(errs, field.Invalid(p, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"))
		}
	} else if !options.InvalidSourceGroups {
		errs = append(errs, rule.Messages(p.Child("apiGroup"), *group, validation.IsDNS1123Subdomain(*group))...)
	}
	return errs
}
