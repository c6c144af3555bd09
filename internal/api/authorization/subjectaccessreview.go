// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	authorizationv1 "k8s.io/api/authorization/v1"

	"kaji/internal/api"
)

func subjectAccessReview() *api.Kind {
	return &api.Kind{
		Group: authorizationv1.GroupName, Name: "SubjectAccessReview", Resource: "subjectaccessreviews", Singular: "subjectaccessreview",
		Verbs: []string{"create"},
		Versions: []api.Version{{
			GroupVersion: authorizationv1.SchemeGroupVersion,
			New:          api.New[authorizationv1.SubjectAccessReview],
		}},
		Storage: authorizationv1.SchemeGroupVersion,
		New:     api.New[authorizationv1.SubjectAccessReview],
		Rules:   api.For[*authorizationv1.SubjectAccessReview]{Validate: validateReview}.Rules(),
	}
}
