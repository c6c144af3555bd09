// SPDX-License-Identifier: Apache-2.0

package apiextensions

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	internal "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"kaji/internal/api"
)

func customResourceDefinition() *api.Kind {
	return &api.Kind{
		Group: apiextensionsv1.GroupName, Name: "CustomResourceDefinition", Resource: "customresourcedefinitions", Singular: "customresourcedefinition",
		ShortNames: []string{"crd", "crds"}, Categories: []string{"api-extensions"},
		Versions: []api.Version{{
			GroupVersion: apiextensionsv1.SchemeGroupVersion,
			New:          api.New[apiextensionsv1.CustomResourceDefinition], NewList: api.NewList[apiextensionsv1.CustomResourceDefinitionList],
			Default: api.Default(defaultDefinition),
		}},
		Storage: apiextensionsv1.SchemeGroupVersion,
		Prefix:  "/registry/apiextensions.k8s.io/customresourcedefinitions",
		New:     api.New[apiextensionsv1.CustomResourceDefinition], NewList: api.NewList[apiextensionsv1.CustomResourceDefinitionList],
		Rules: api.For[*apiextensionsv1.CustomResourceDefinition]{
			PrepareForCreate: prepareForCreate,
			PrepareForUpdate: prepareForUpdate,
			Validate: func(crd *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
				in, errs := toInternal(crd)
				if errs != nil {
					return errs
				}
				return validation.ValidateCustomResourceDefinition(context.Background(), in)
			},
			ValidateUpdate: validateUpdate(validation.ValidateCustomResourceDefinitionUpdate),
			Warnings:       warnings,
			BeforeDelete:   markTerminating,
			Columns:        columns(),
			Cells:          cells,
		}.Rules(),
		OwnMetadata: true, PlainFinalizers: true, RepeatsErrors: true,
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, crd, old *apiextensionsv1.CustomResourceDefinition) {
				crd.Spec = old.Spec
				metav1.ResetObjectMetaForStatus(&crd.ObjectMeta, &crd.ObjectMeta)
			}),
			ValidateUpdate: api.Update(validateUpdate(validation.ValidateUpdateCustomResourceDefinitionStatus)),
			ResetFields:    []string{"spec"},
			NoTable:        true,
		},
	}
}

// toInternal returns the form that upstream's validation is written over.
func toInternal(crd *apiextensionsv1.CustomResourceDefinition) (*internal.CustomResourceDefinition, field.ErrorList) {
	in := &internal.CustomResourceDefinition{}
	// The conversion shares what it can; validation changes nothing.
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(crd.DeepCopy(), in, nil); err != nil {
		return nil, field.ErrorList{field.InternalError(nil, err)}
	}
	return in, nil
}

func validateUpdate(validate func(context.Context, *internal.CustomResourceDefinition, *internal.CustomResourceDefinition) field.ErrorList) func(crd, old *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	return func(crd, old *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
		in, errs := toInternal(crd)
		if errs != nil {
			return errs
		}
		inOld, errs := toInternal(old)
		if errs != nil {
			return errs
		}
		return validate(context.Background(), in, inOld)
	}
}

func prepareForCreate(_ context.Context, crd *apiextensionsv1.CustomResourceDefinition) {
	crd.Status = apiextensionsv1.CustomResourceDefinitionStatus{}
	crd.Generation = 1
	recordStorageVersion(crd)
}

func prepareForUpdate(_ context.Context, crd, old *apiextensionsv1.CustomResourceDefinition) {
	crd.Status = *old.Status.DeepCopy()
	if !equality.Semantic.DeepEqual(old.Spec, crd.Spec) {
		crd.Generation = old.Generation + 1
	}
	recordStorageVersion(crd)
}

// recordStorageVersion notes that objects may be stored in the version that is
// the storage version now.
func recordStorageVersion(crd *apiextensionsv1.CustomResourceDefinition) {
	stored := slices.IndexFunc(crd.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Storage })
	if stored < 0 {
		return
	}
	if name := crd.Spec.Versions[stored].Name; !slices.Contains(crd.Status.StoredVersions, name) {
		crd.Status.StoredVersions = append(crd.Status.StoredVersions, name)
	}
}

// markTerminating keeps a deleted definition until its objects are gone.
func markTerminating(crd *apiextensionsv1.CustomResourceDefinition) {
	now := metav1.Now()
	crd.DeletionTimestamp = &now
	if !slices.Contains(crd.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer) {
		crd.Finalizers = append(crd.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer)
	}
	SetCondition(crd, apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionTrue, Reason: "InstanceDeletionPending",
		Message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
	})
}

// SetCondition sets a condition of crd; its time changes with its status.
func SetCondition(crd *apiextensionsv1.CustomResourceDefinition, c apiextensionsv1.CustomResourceDefinitionCondition) {
	c.LastTransitionTime = metav1.NewTime(time.Now())
	for i := range crd.Status.Conditions {
		old := &crd.Status.Conditions[i]
		if old.Type != c.Type {
			continue
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		*old = c
		return
	}
	crd.Status.Conditions = append(crd.Status.Conditions, c)
}

// IsTrue says whether a condition of crd is true.
func IsTrue(crd *apiextensionsv1.CustomResourceDefinition, condition apiextensionsv1.CustomResourceDefinitionConditionType) bool {
	return slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == condition && c.Status == apiextensionsv1.ConditionTrue
	})
}

// warnings tells of formats the server does not know and of sets that cannot
// be merged; an update only of those that are new.
func warnings(crd, old *apiextensionsv1.CustomResourceDefinition) []string {
	formats, sets := complaints(crd)
	if old != nil {
		oldFormats, oldSets := complaints(old)
		known := func(list []string) func(string) bool {
			return func(s string) bool { return slices.Contains(list, s) }
		}
		formats = slices.DeleteFunc(formats, known(oldFormats))
		sets = slices.DeleteFunc(sets, known(oldSets))
	}
	slices.Sort(sets)
	return append(formats, slices.Compact(sets)...)
}

func complaints(crd *apiextensionsv1.CustomResourceDefinition) (formats, sets []string) {
	in, errs := toInternal(crd)
	if errs != nil {
		return nil, nil
	}
	visit := func(s *internal.JSONSchemaProps) bool {
		if s.Format != "" {
			props := &spec.Schema{SchemaProps: spec.SchemaProps{Format: s.Format, Type: []string{s.Type}}}
			for _, f := range schemavalidation.GetUnrecognizedFormats(props, environment.DefaultCompatibilityVersion()) {
				formats = append(formats, fmt.Sprintf("unrecognized format %q", f))
			}
		}
		if s.XListType != nil && *s.XListType == "set" && s.Items != nil && s.Items.Schema != nil {
			if t := s.Items.Schema.Type; t == "object" || t == "array" {
				sets = append(sets, fmt.Sprintf("x-kubernetes-list-type: set for items of type %q is not supported by server-side apply or CEL validation rules", t))
			}
		}
		return false
	}
	if in.Spec.Validation != nil && in.Spec.Validation.OpenAPIV3Schema != nil {
		validation.SchemaHas(in.Spec.Validation.OpenAPIV3Schema, visit)
	}
	for _, v := range in.Spec.Versions {
		if v.Schema != nil && v.Schema.OpenAPIV3Schema != nil {
			validation.SchemaHas(v.Schema.OpenAPIV3Schema, visit)
		}
	}
	return formats, sets
}

func columns() []metav1.TableColumnDefinition {
	doc := metav1.ObjectMeta{}.SwaggerDoc()
	return []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: doc["name"]},
		{Name: "Scope", Type: "string", Description: "Cluster/Namespaced"},
		{Name: "Versions", Type: "string", Description: "Served versions"},
		{Name: "Created At", Type: "date", Description: doc["creationTimestamp"]},
		{Name: "Group", Type: "string", Priority: 1, Description: "API group"},
		{Name: "Kind", Type: "string", Priority: 1, Description: "CustomResource kind"},
		{Name: "ShortNames", Type: "string", Priority: 1, Description: "Short names"},
		{Name: "Established", Type: "boolean", Priority: 1, Description: "Established status"},
	}
}

func cells(crd *apiextensionsv1.CustomResourceDefinition) []any {
	var served []string
	for _, v := range crd.Spec.Versions {
		switch {
		case v.Served && v.Storage:
			served = append(served, v.Name+"(storage)")
		case v.Served:
			served = append(served, v.Name)
		}
	}
	slices.Sort(served)
	return []any{
		crd.Name, string(crd.Spec.Scope), strings.Join(served, ","), crd.CreationTimestamp.UTC().Format(time.RFC3339),
		crd.Spec.Group, crd.Spec.Names.Kind, strings.Join(crd.Spec.Names.ShortNames, ","), IsTrue(crd, apiextensionsv1.Established),
	}
}

// defaultDefinition fills in the defaults and forgets a webhook that says nothing.
func defaultDefinition(c *apiextensionsv1.CustomResourceDefinition) {
	apiextensionsv1.SetObjectDefaults_CustomResourceDefinition(c)
	if conversion := c.Spec.Conversion; conversion != nil && conversion.Webhook != nil &&
		conversion.Webhook.ClientConfig == nil && len(conversion.Webhook.ConversionReviewVersions) == 0 {
		conversion.Webhook = nil
	}
}
