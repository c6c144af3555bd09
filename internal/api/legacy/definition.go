// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
)

// definition is version v1beta1 of CustomResourceDefinitions. Version v1 demands
// a structural schema; a definition that has none keeps unknown fields, as it
// did.
func definition() api.Version {
	return api.Version{
		GroupVersion: apiextensionsv1beta1.SchemeGroupVersion,
		New:          api.New[apiextensionsv1beta1.CustomResourceDefinition],
		NewList:      api.NewList[apiextensionsv1beta1.CustomResourceDefinitionList],
		Default:      api.Default(apiextensionsv1beta1.SetObjectDefaults_CustomResourceDefinition),
		ToHub:        api.Convert(definitionUp),
		FromHub:      api.Convert(definitionDown),
	}
}

func definitionUp(in *apiextensionsv1beta1.CustomResourceDefinition, hub *apiextensionsv1.CustomResourceDefinition) error {
	var middle apiextensions.CustomResourceDefinition
	if err := apiextensionsv1beta1.Convert_v1beta1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(in.DeepCopy(), &middle, nil); err != nil {
		return err
	}
	keep := middle.Spec.PreserveUnknownFields == nil || *middle.Spec.PreserveUnknownFields
	no := false
	middle.Spec.PreserveUnknownFields = &no
	if v := middle.Spec.Validation; v != nil {
		v.OpenAPIV3Schema = structural(v.OpenAPIV3Schema, keep)
	} else {
		middle.Spec.Validation = &apiextensions.CustomResourceValidation{}
		for i := range middle.Spec.Versions {
			v := &middle.Spec.Versions[i]
			if v.Schema != nil {
				middle.Spec.Validation = nil
				v.Schema.OpenAPIV3Schema = structural(v.Schema.OpenAPIV3Schema, keep)
			}
		}
		if v := middle.Spec.Validation; v != nil {
			v.OpenAPIV3Schema = structural(nil, keep)
		}
	}
	return apiextensionsv1.Convert_apiextensions_CustomResourceDefinition_To_v1_CustomResourceDefinition(&middle, hub, nil)
}

// structural returns a schema that version v1 accepts: the one given, or one
// that keeps everything where that is not structural.
func structural(s *apiextensions.JSONSchemaProps, keep bool) *apiextensions.JSONSchemaProps {
	yes := true
	if s != nil {
		s.XPreserveUnknownFields = preserve(s.XPreserveUnknownFields, keep)
		if s.Type == "" {
			s.Type = "object"
		}
		parsed, err := structuralschema.NewStructural(s)
		if err == nil && len(structuralschema.ValidateStructural(field.NewPath("schema"), parsed)) == 0 {
			return s
		}
	}
	return &apiextensions.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &yes}
}

func preserve(is *bool, keep bool) *bool {
	if keep {
		return &keep
	}
	return is
}

func definitionDown(hub *apiextensionsv1.CustomResourceDefinition, out *apiextensionsv1beta1.CustomResourceDefinition) error {
	var middle apiextensions.CustomResourceDefinition
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(hub.DeepCopy(), &middle, nil); err != nil {
		return err
	}
	return apiextensionsv1beta1.Convert_apiextensions_CustomResourceDefinition_To_v1beta1_CustomResourceDefinition(&middle, out, nil)
}
