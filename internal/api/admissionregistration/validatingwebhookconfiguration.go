// SPDX-License-Identifier: Apache-2.0

package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"kaji/internal/api"
)

func validatingWebhookConfiguration() *api.Kind {
	return &api.Kind{
		Group: admissionregistrationv1.GroupName, Name: "ValidatingWebhookConfiguration", Resource: "validatingwebhookconfigurations", Singular: "validatingwebhookconfiguration",
		Categories: []string{"api-extensions"},
		Versions: []api.Version{{
			GroupVersion: admissionregistrationv1.SchemeGroupVersion,
			New:          api.New[admissionregistrationv1.ValidatingWebhookConfiguration], NewList: api.NewList[admissionregistrationv1.ValidatingWebhookConfigurationList],
		}},
		Storage: admissionregistrationv1.SchemeGroupVersion,
		Prefix:  "/registry/validatingwebhookconfigurations",
		New:     api.New[admissionregistrationv1.ValidatingWebhookConfiguration], NewList: api.NewList[admissionregistrationv1.ValidatingWebhookConfigurationList],
	}
}
