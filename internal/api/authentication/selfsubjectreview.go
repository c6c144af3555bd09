// SPDX-License-Identifier: Apache-2.0

package authentication

import (
	authenticationv1 "k8s.io/api/authentication/v1"

	"kaji/internal/api"
)

func selfSubjectReview() *api.Kind {
	return &api.Kind{
		Group: authenticationv1.GroupName, Name: "SelfSubjectReview", Resource: "selfsubjectreviews", Singular: "selfsubjectreview",
		Verbs: []string{"create"},
		Versions: []api.Version{{
			GroupVersion: authenticationv1.SchemeGroupVersion,
			New:          api.New[authenticationv1.SelfSubjectReview],
		}},
		Storage: authenticationv1.SchemeGroupVersion,
		New:     api.New[authenticationv1.SelfSubjectReview],
	}
}
