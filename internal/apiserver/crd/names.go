// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"fmt"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	kinds "kaji/internal/api/apiextensions"
	"kaji/internal/apiserver/cache"
)

// taken are the names that the definitions of a group have been accepted with.
type taken struct{ resources, kinds map[string]bool }

// takenNames collects the names accepted in a group.
func takenNames(group string, all []*apiextensionsv1.CustomResourceDefinition) taken {
	t := taken{map[string]bool{}, map[string]bool{}}
	for _, crd := range all {
		if crd.Spec.Group != group {
			continue
		}
		names := &crd.Status.AcceptedNames
		t.resources[names.Plural], t.resources[names.Singular] = true, true
		for _, s := range names.ShortNames {
			t.resources[s] = true
		}
		t.kinds[names.Kind], t.kinds[names.ListKind] = true, true
	}
	return t
}

func free(wanted, own string, used map[string]bool) error {
	if wanted != own && used[wanted] {
		return fmt.Errorf("%q is already in use", wanted)
	}
	return nil
}

// settle brings the conditions and accepted names of crd, a copy of what e
// holds, up to date.
// What cannot be accepted stays as it was, each name for itself.
func settle(crd *apiextensionsv1.CustomResourceDefinition, e *cache.Entry, all []*apiextensionsv1.CustomResourceDefinition) {
	settleNames(crd, takenNames(crd.Spec.Group, all))
	settleSchema(crd, e)
	settleApproval(crd)
}

func settleNames(crd *apiextensionsv1.CustomResourceDefinition, t taken) {
	wanted, accepted := &crd.Spec.Names, &crd.Status.AcceptedNames
	condition := apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionTrue,
		Reason: "NoConflicts", Message: "no conflicts found",
	}
	judge := func(err error, reason string, accept func()) {
		if err == nil {
			accept()
			return
		}
		condition.Status, condition.Reason, condition.Message = apiextensionsv1.ConditionFalse, reason, err.Error()
	}
	judge(free(wanted.Plural, accepted.Plural, t.resources), "PluralConflict", func() { accepted.Plural = wanted.Plural })
	judge(free(wanted.Singular, accepted.Singular, t.resources), "SingularConflict", func() { accepted.Singular = wanted.Singular })
	var errs []error
	for _, s := range wanted.ShortNames {
		if !slices.Contains(accepted.ShortNames, s) {
			if err := free(s, "", t.resources); err != nil {
				errs = append(errs, err)
			}
		}
	}
	var conflict error
	if aggregate := utilerrors.NewAggregate(errs); aggregate != nil {
		conflict = aggregate
	}
	judge(conflict, "ShortNamesConflict", func() { accepted.ShortNames = slices.Clone(wanted.ShortNames) })
	judge(free(wanted.Kind, accepted.Kind, t.kinds), "KindConflict", func() { accepted.Kind = wanted.Kind })
	judge(free(wanted.ListKind, accepted.ListKind, t.kinds), "ListKindConflict", func() { accepted.ListKind = wanted.ListKind })
	accepted.Categories = slices.Clone(wanted.Categories)
	kinds.SetCondition(crd, condition)

	established := apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionFalse,
		Reason: "NotAccepted", Message: "not all names are accepted",
	}
	switch {
	case kinds.IsTrue(crd, apiextensionsv1.Established):
		// Once served it stays so, with the names it had.
	case condition.Status == apiextensionsv1.ConditionTrue:
		established.Reason, established.Message = reasonInstalling, "the initial names have been accepted"
		fallthrough
	default:
		kinds.SetCondition(crd, established)
	}
}

// settleSchema says whether a definition of the time before structural schemas
// violates them; others cannot.
func settleSchema(crd *apiextensionsv1.CustomResourceDefinition, e *cache.Entry) {
	var errs field.ErrorList
	if crd.Spec.PreserveUnknownFields {
		errs = append(errs, field.Invalid(field.NewPath("spec", "preserveUnknownFields"), true, "must be false"))
		for i := range crd.Spec.Versions {
			v := newVersion(e, crd, i)
			errs = append(errs, v.violations(field.NewPath("spec", "versions").Index(i).Child("schema", "openAPIV3Schema"))...)
		}
	}
	if len(errs) == 0 {
		crd.Status.Conditions = slices.DeleteFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
			return c.Type == apiextensionsv1.NonStructuralSchema
		})
		return
	}
	kinds.SetCondition(crd, apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.NonStructuralSchema, Status: apiextensionsv1.ConditionTrue,
		Reason: "Violations", Message: errs.ToAggregate().Error(),
	})
}

// violations are what keeps the version's schema from being structural.
func (v *version) violations(path *field.Path) field.ErrorList {
	props, err := v.props()
	if err != nil || props == nil {
		return nil
	}
	s, err := structuralschema.NewStructural(props)
	if err != nil {
		return field.ErrorList{field.Invalid(path, "", err.Error())}
	}
	return structuralschema.ValidateStructural(path, s)
}

// settleApproval says whether a definition in a group of the Kubernetes
// community has that community's approval.
func settleApproval(crd *apiextensionsv1.CustomResourceDefinition) {
	if !apihelpers.IsProtectedCommunityGroup(crd.Spec.Group) {
		return
	}
	state, message := apihelpers.GetAPIApprovalState(crd.Annotations)
	c := apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.KubernetesAPIApprovalPolicyConformant, Status: apiextensionsv1.ConditionFalse, Message: message,
	}
	switch state {
	case apihelpers.APIApprovalInvalid:
		c.Reason = "InvalidAnnotation"
	case apihelpers.APIApprovalMissing:
		c.Reason = "MissingAnnotation"
	case apihelpers.APIApproved:
		c.Status, c.Reason = apiextensionsv1.ConditionTrue, "ApprovedAnnotation"
	case apihelpers.APIApprovalBypassed:
		c.Reason = "UnapprovedAnnotation"
	default:
		c.Status, c.Reason = apiextensionsv1.ConditionUnknown, "UnknownAnnotation"
	}
	kinds.SetCondition(crd, c)
}
