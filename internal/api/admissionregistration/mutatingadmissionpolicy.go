// SPDX-License-Identifier: Apache-2.0

package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"kaji/internal/api"
)

func mutatingAdmissionPolicy() *api.Kind {
	return &api.Kind{
		Group: admissionregistrationv1.GroupName, Name: "MutatingAdmissionPolicy", Resource: "mutatingadmissionpolicies", Singular: "mutatingadmissionpolicy",
		Categories: []string{"api-extensions"},
		Versions: []api.Version{{
			GroupVersion: admissionregistrationv1.SchemeGroupVersion,
			New:          api.New[admissionregistrationv1.MutatingAdmissionPolicy], NewList: api.NewList[admissionregistrationv1.MutatingAdmissionPolicyList],
		}},
		Storage: admissionregistrationv1.SchemeGroupVersion,
		Prefix:  "/registry/mutatingadmissionpolicies",
		New:     api.New[admissionregistrationv1.MutatingAdmissionPolicy], NewList: api.NewList[admissionregistrationv1.MutatingAdmissionPolicyList],
	}
}
