// SPDX-License-Identifier: Apache-2.0

package apiregistration

import (
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"kaji/internal/api"
)

func apiService() *api.Kind {
	return &api.Kind{
		Group: apiregistrationv1.GroupName, Name: "APIService", Resource: "apiservices", Singular: "apiservice",
		Categories: []string{"api-extensions"},
		Versions: []api.Version{{
			GroupVersion: apiregistrationv1.SchemeGroupVersion,
			New:          api.New[apiregistrationv1.APIService], NewList: api.NewList[apiregistrationv1.APIServiceList],
		}},
		Storage: apiregistrationv1.SchemeGroupVersion,
		Prefix:  "/registry/apiregistration.k8s.io/apiservices",
		New:     api.New[apiregistrationv1.APIService], NewList: api.NewList[apiregistrationv1.APIServiceList],
		Status: &api.Subresource{Name: "status"},
	}
}
