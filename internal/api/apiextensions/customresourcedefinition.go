// SPDX-License-Identifier: Apache-2.0

package apiextensions

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"kaji/internal/api"
)

func customResourceDefinition() *api.Kind {
	return &api.Kind{
		Group: apiextensionsv1.GroupName, Name: "CustomResourceDefinition", Resource: "customresourcedefinitions", Singular: "customresourcedefinition",
		ShortNames: []string{"crd", "crds"}, Categories: []string{"api-extensions"},
		Versions: []api.Version{{
			GroupVersion: apiextensionsv1.SchemeGroupVersion,
			New:          api.New[apiextensionsv1.CustomResourceDefinition], NewList: api.NewList[apiextensionsv1.CustomResourceDefinitionList],
		}},
		Storage: apiextensionsv1.SchemeGroupVersion,
		Prefix:  "/registry/apiextensions.k8s.io/customresourcedefinitions",
		New:     api.New[apiextensionsv1.CustomResourceDefinition], NewList: api.NewList[apiextensionsv1.CustomResourceDefinitionList],
		Status: &api.Subresource{Name: "status"},
	}
}
