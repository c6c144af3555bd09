// SPDX-License-Identifier: Apache-2.0

package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"kaji/internal/api"
)

func validatingAdmissionPolicyBinding() *api.Kind {
	return &api.Kind{
		Group: admissionregistrationv1.GroupName, Name: "ValidatingAdmissionPolicyBinding", Resource: "validatingadmissionpolicybindings", Singular: "validatingadmissionpolicybinding",
		Categories: []string{"api-extensions"},
		Versions: []api.Version{{
			GroupVersion: admissionregistrationv1.SchemeGroupVersion,
			New:          api.New[admissionregistrationv1.ValidatingAdmissionPolicyBinding], NewList: api.NewList[admissionregistrationv1.ValidatingAdmissionPolicyBindingList],
		}},
		Storage: admissionregistrationv1.SchemeGroupVersion,
		Prefix:  "/registry/validatingadmissionpolicybindings",
		New:     api.New[admissionregistrationv1.ValidatingAdmissionPolicyBinding], NewList: api.NewList[admissionregistrationv1.ValidatingAdmissionPolicyBindingList],
	}
}
