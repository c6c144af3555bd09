// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	authorizationv1 "k8s.io/api/authorization/v1"

	"kaji/internal/api"
)

func selfSubjectAccessReview() *api.Kind {
	return &api.Kind{
		Group: authorizationv1.GroupName, Name: "SelfSubjectAccessReview", Resource: "selfsubjectaccessreviews", Singular: "selfsubjectaccessreview",
		Verbs: []string{"create"},
		Versions: []api.Version{{
			GroupVersion: authorizationv1.SchemeGroupVersion,
			New:          api.New[authorizationv1.SelfSubjectAccessReview],
		}},
		Storage: authorizationv1.SchemeGroupVersion,
		New:     api.New[authorizationv1.SelfSubjectAccessReview],
		Rules:   api.For[*authorizationv1.SelfSubjectAccessReview]{Validate: validateSelfReview}.Rules(),
	}
}
