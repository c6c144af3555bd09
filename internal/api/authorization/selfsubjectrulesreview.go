// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	authorizationv1 "k8s.io/api/authorization/v1"

	"kaji/internal/api"
)

func selfSubjectRulesReview() *api.Kind {
	return &api.Kind{
		Group: authorizationv1.GroupName, Name: "SelfSubjectRulesReview", Resource: "selfsubjectrulesreviews", Singular: "selfsubjectrulesreview",
		Verbs: []string{"create"},
		Versions: []api.Version{{
			GroupVersion: authorizationv1.SchemeGroupVersion,
			New:          api.New[authorizationv1.SelfSubjectRulesReview],
		}},
		Storage: authorizationv1.SchemeGroupVersion,
		New:     api.New[authorizationv1.SelfSubjectRulesReview],
	}
}
