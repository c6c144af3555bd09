// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	authorizationv1 "k8s.io/api/authorization/v1"

	"kaji/internal/api"
)

func localSubjectAccessReview() *api.Kind {
	return &api.Kind{
		Group: authorizationv1.GroupName, Name: "LocalSubjectAccessReview", Resource: "localsubjectaccessreviews", Singular: "localsubjectaccessreview",
		Namespaced: true,
		Verbs:      []string{"create"},
		Versions: []api.Version{{
			GroupVersion: authorizationv1.SchemeGroupVersion,
			New:          api.New[authorizationv1.LocalSubjectAccessReview],
		}},
		Storage: authorizationv1.SchemeGroupVersion,
		New:     api.New[authorizationv1.LocalSubjectAccessReview],
		Rules:   api.For[*authorizationv1.LocalSubjectAccessReview]{Validate: validateLocalReview}.Rules(),
	}
}
