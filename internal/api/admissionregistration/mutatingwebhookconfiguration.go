// SPDX-License-Identifier: Apache-2.0

package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"kaji/internal/api"
)

func mutatingWebhookConfiguration() *api.Kind {
	return &api.Kind{
		Group: admissionregistrationv1.GroupName, Name: "MutatingWebhookConfiguration", Resource: "mutatingwebhookconfigurations", Singular: "mutatingwebhookconfiguration",
		Categories: []string{"api-extensions"},
		Versions: []api.Version{{
			GroupVersion: admissionregistrationv1.SchemeGroupVersion,
			New:          api.New[admissionregistrationv1.MutatingWebhookConfiguration], NewList: api.NewList[admissionregistrationv1.MutatingWebhookConfigurationList],
		}},
		Storage: admissionregistrationv1.SchemeGroupVersion,
		Prefix:  "/registry/mutatingwebhookconfigurations",
		New:     api.New[admissionregistrationv1.MutatingWebhookConfiguration], NewList: api.NewList[admissionregistrationv1.MutatingWebhookConfigurationList],
	}
}
