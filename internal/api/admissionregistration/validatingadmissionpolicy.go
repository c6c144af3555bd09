// SPDX-License-Identifier: Apache-2.0

package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"kaji/internal/api"
)

func validatingAdmissionPolicy() *api.Kind {
	return &api.Kind{
		Group: admissionregistrationv1.GroupName, Name: "ValidatingAdmissionPolicy", Resource: "validatingadmissionpolicies", Singular: "validatingadmissionpolicy",
		Categories: []string{"api-extensions"},
		Versions: []api.Version{{
			GroupVersion: admissionregistrationv1.SchemeGroupVersion,
			New:          api.New[admissionregistrationv1.ValidatingAdmissionPolicy], NewList: api.NewList[admissionregistrationv1.ValidatingAdmissionPolicyList],
		}},
		Storage: admissionregistrationv1.SchemeGroupVersion,
		Prefix:  "/registry/validatingadmissionpolicies",
		New:     api.New[admissionregistrationv1.ValidatingAdmissionPolicy], NewList: api.NewList[admissionregistrationv1.ValidatingAdmissionPolicyList],
		Status: &api.Subresource{Name: "status"},
	}
}
