// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/apiserver/pkg/warning"

	"kaji/internal/api"
)

func (v *version) prepareForCreate(_ context.Context, u *unstructured.Unstructured) {
	if v.hasStatus() {
		delete(u.Object, "status")
	}
	u.SetGeneration(1)
}

func (v *version) prepareForUpdate(_ context.Context, u, old *unstructured.Unstructured) {
	if v.hasStatus() {
		if status, ok := old.Object["status"]; ok {
			u.Object["status"] = status
		} else {
			delete(u.Object, "status")
		}
	}
	if !equality.Semantic.DeepEqual(withoutMetadata(u), withoutMetadata(old)) {
		u.SetGeneration(old.GetGeneration() + 1)
	}
}

func withoutMetadata(u *unstructured.Unstructured) map[string]any {
	out := maps.Clone(u.Object)
	delete(out, "metadata")
	return out
}

func (v *version) prepareForStatus(_ context.Context, u, old *unstructured.Unstructured) {
	status, ok := u.Object["status"]
	managed := u.GetManagedFields()
	u.Object = old.DeepCopy().Object
	u.SetManagedFields(managed)
	if ok {
		u.Object["status"] = status
	} else {
		delete(u.Object, "status")
	}
}

func (v *version) validate(u *unstructured.Unstructured) field.ErrorList {
	c, err := v.schema()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	ctx := context.Background()
	errs := validation.ValidateCustomResource(nil, u.Object, c.whole)
	errs = append(errs, v.validateScale(u, true)...)
	errs = append(errs, objectmeta.Validate(ctx, nil, u.Object, c.structural, false)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, c.structural, u.Object)...)
	if c.rules == nil {
		return errs
	}
	if blocked := blocking(errs); blocked != nil {
		return append(errs, blocked)
	}
	more, _ := c.rules.Validate(ctx, nil, c.structural, u.Object, nil, celconfig.RuntimeCELCostBudget)
	return append(errs, more...)
}

func (v *version) validateUpdate(u, old *unstructured.Unstructured) field.ErrorList {
	c, err := v.schema()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	ctx := context.Background()
	// What was wrong before and did not change stays tolerated.
	correlated := common.NewCorrelatedObject(u.Object, old.Object, &model.Structural{Structural: c.structural})
	errs := metadataErrors(u, old)
	errs = append(errs, validation.ValidateCustomResourceUpdate(nil, u.Object, old.Object, c.whole, validation.WithRatcheting(correlated))...)
	errs = append(errs, v.validateScale(u, true)...)
	errs = append(errs, objectmeta.Validate(ctx, nil, u.Object, c.structural, false)...)
	errs = append(errs, newListErrors(c, u, old)...)
	errs = append(errs, c.transition(ctx, errs, u, old, correlated)...)
	validation.Metrics.ObserveRatchetingTime(*correlated.Duration)
	return errs
}

func (v *version) validateStatus(u, old *unstructured.Unstructured) field.ErrorList {
	c, err := v.schema()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	correlated := common.NewCorrelatedObject(u.Object, old.Object, &model.Structural{Structural: c.structural})
	errs := metadataErrors(u, old)
	if status, ok := u.Object["status"]; ok {
		var options []validation.ValidationOption
		if c.structural != nil {
			options = append(options, validation.WithRatcheting(correlated.Key("status")))
		}
		errs = append(errs, validation.ValidateCustomResourceUpdate(field.NewPath("status"), status, old.Object["status"], c.status, options...)...)
	}
	errs = append(errs, v.validateScale(u, false)...)
	errs = append(errs, newListErrors(c, u, old)...)
	errs = append(errs, c.transition(context.Background(), errs, u, old, correlated)...)
	validation.Metrics.ObserveRatchetingTime(*correlated.Duration)
	return errs
}

// metadataErrors are what the machine finds in metadata too: the reference tells
// them again.
func metadataErrors(u, old *unstructured.Unstructured) field.ErrorList {
	return apivalidation.ValidateObjectMetaAccessorUpdate(u, old, field.NewPath("metadata")).Filter()
}

// newListErrors are the duplicates in sets and maps of an object that had none.
func newListErrors(c *compiled, u, old *unstructured.Unstructured) field.ErrorList {
	errs := listtype.ValidateListSetsAndMaps(nil, c.structural, u.Object)
	if len(errs) > 0 && len(listtype.ValidateListSetsAndMaps(nil, c.structural, old.Object)) > 0 {
		return nil
	}
	return errs
}

// transition evaluates the CEL rules of an update, unless earlier errors make
// that pointless.
func (c *compiled) transition(ctx context.Context, errs field.ErrorList, u, old *unstructured.Unstructured, correlated *common.CorrelatedObject) field.ErrorList {
	if c.rules == nil {
		return nil
	}
	if blocked := blocking(errs); blocked != nil {
		return field.ErrorList{blocked}
	}
	tolerated := &toleratedErrors{}
	ctx = warning.WithWarningRecorder(ctx, tolerated)
	out, _ := c.rules.Validate(ctx, nil, c.structural, u.Object, old.Object, celconfig.RuntimeCELCostBudget, cel.WithRatcheting(correlated))
	return append(out, tolerated.errs...)
}

// toleratedErrors collects the broken rules that ratcheting lets pass.
type toleratedErrors struct{ errs field.ErrorList }

// AddWarning implements warning.Recorder.
func (t *toleratedErrors) AddWarning(_, text string) {
	t.errs = append(t.errs, &field.Error{Type: api.Tolerated, Detail: text})
}

// blocking returns an error in place of the rules' when the object is too
// wrong for rules to be evaluated.
func blocking(errs field.ErrorList) *field.Error {
	for _, err := range errs {
		switch err.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return field.Invalid(nil, nil, "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation")
		}
	}
	return nil
}

// validateScale checks the fields that the subresource scale stands for.
func (v *version) validateScale(u *unstructured.Unstructured, spec bool) field.ErrorList {
	scale := v.scale()
	if scale == nil {
		return nil
	}
	var errs field.ErrorList
	if spec {
		errs = append(errs, validateReplicas(u, scale.SpecReplicasPath)...)
	}
	errs = append(errs, validateReplicas(u, scale.StatusReplicasPath)...)
	if path := scale.LabelSelectorPath; path != nil {
		if selector, _, err := unstructured.NestedString(u.Object, fieldsOf(*path)...); err != nil {
			errs = append(errs, field.Invalid(field.NewPath(*path), selector, err.Error()))
		}
	}
	return errs
}

func validateReplicas(u *unstructured.Unstructured, path string) field.ErrorList {
	n, _, err := unstructured.NestedInt64(u.Object, fieldsOf(path)...)
	switch {
	case err != nil:
		return field.ErrorList{field.Invalid(field.NewPath(path), n, err.Error())}
	case n < 0:
		return field.ErrorList{field.Invalid(field.NewPath(path), n, "should be a non-negative integer")}
	case n > math.MaxInt32:
		return field.ErrorList{field.Invalid(field.NewPath(path), n, fmt.Sprintf("should be less than or equal to %v", math.MaxInt32))}
	}
	return nil
}

// fieldsOf splits a simple JSON path, such as ".spec.replicas".
func fieldsOf(path string) []string { return strings.Split(strings.TrimPrefix(path, "."), ".") }

// warnings tells of finalizers, newly added ones on update, that could be
// anybody's.
func warnings(u, old *unstructured.Unstructured) []string {
	added := slices.Clone(u.GetFinalizers())
	if old != nil {
		before := old.GetFinalizers()
		added = slices.DeleteFunc(added, func(f string) bool { return slices.Contains(before, f) })
	}
	slices.Sort(added)
	var out []string
	for _, f := range slices.Compact(added) {
		for _, message := range utilvalidation.IsQualifiedName(f) {
			out = append(out, fmt.Sprintf("metadata.finalizers: %q: %s", f, message))
		}
		switch {
		case strings.Contains(f, "/"), f == metav1.FinalizerOrphanDependents, f == metav1.FinalizerDeleteDependents, f == string(corev1.FinalizerKubernetes):
		case strings.Contains(f, "."):
			out = append(out, fmt.Sprintf("metadata.finalizers: %q: prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers", f))
		default:
			out = append(out, fmt.Sprintf("metadata.finalizers: %q: prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers", f))
		}
	}
	return out
}
