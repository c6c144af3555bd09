// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	authenticationv1beta1 "k8s.io/api/authentication/v1beta1"
	authorizationv1 "k8s.io/api/authorization/v1"
	authorizationv1beta1 "k8s.io/api/authorization/v1beta1"
)

func reviews() []removed {
	authentication, authorization := authenticationv1beta1.SchemeGroupVersion, authorizationv1beta1.SchemeGroupVersion
	return []removed{
		{authenticationv1.Resource("tokenreviews"), versions(unlisted[authenticationv1beta1.TokenReview](authentication, nil, nil))},
		{authenticationv1.Resource("selfsubjectreviews"), versions(unlisted[authenticationv1beta1.SelfSubjectReview](authentication, nil, nil))},
		{authorizationv1.Resource("subjectaccessreviews"), versions(
			unlisted[authorizationv1beta1.SubjectAccessReview](authorization, groupsUp, groupsDown),
		)},
		{authorizationv1.Resource("localsubjectaccessreviews"), versions(
			unlisted[authorizationv1beta1.LocalSubjectAccessReview](authorization, groupsUp, groupsDown),
		)},
		{authorizationv1.Resource("selfsubjectaccessreviews"), versions(
			unlisted[authorizationv1beta1.SelfSubjectAccessReview](authorization, nil, nil),
		)},
		{authorizationv1.Resource("selfsubjectrulesreviews"), versions(
			unlisted[authorizationv1beta1.SelfSubjectRulesReview](authorization, nil, nil),
		)},
	}
}

// groupsUp and groupsDown rename the groups of the one who is asked about.
func groupsUp(object map[string]any) { move(at(object, "spec"), "group", "groups") }

func groupsDown(object map[string]any) { move(at(object, "spec"), "groups", "group") }
