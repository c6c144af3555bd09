// SPDX-License-Identifier: Apache-2.0

package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"kaji/internal/api"
)

func mutatingAdmissionPolicyBinding() *api.Kind {
	return &api.Kind{
		Group: admissionregistrationv1.GroupName, Name: "MutatingAdmissionPolicyBinding", Resource: "mutatingadmissionpolicybindings", Singular: "mutatingadmissionpolicybinding",
		Categories: []string{"api-extensions"},
		Versions: []api.Version{{
			GroupVersion: admissionregistrationv1.SchemeGroupVersion,
			New:          api.New[admissionregistrationv1.MutatingAdmissionPolicyBinding], NewList: api.NewList[admissionregistrationv1.MutatingAdmissionPolicyBindingList],
		}},
		Storage: admissionregistrationv1.SchemeGroupVersion,
		Prefix:  "/registry/mutatingadmissionpolicybindings",
		New:     api.New[admissionregistrationv1.MutatingAdmissionPolicyBinding], NewList: api.NewList[admissionregistrationv1.MutatingAdmissionPolicyBindingList],
	}
}
