// SPDX-License-Identifier: Apache-2.0

package admissionregistration

import (
	"context"
	"reflect"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

func webhookColumns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		table.Name(),
		table.Integer("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration"),
		table.Age(),
	}
}

func mutatingWebhookConfiguration() *api.Kind {
	c := newCompilers()
	return &api.Kind{
		Group: admissionregistrationv1.GroupName, Name: "MutatingWebhookConfiguration", Resource: "mutatingwebhookconfigurations", Singular: "mutatingwebhookconfiguration",
		Categories: []string{"api-extensions"},
		Versions: []api.Version{{
			GroupVersion: admissionregistrationv1.SchemeGroupVersion,
			New:          api.New[admissionregistrationv1.MutatingWebhookConfiguration], NewList: api.NewList[admissionregistrationv1.MutatingWebhookConfigurationList],
			Default: api.Default(defaultMutatingWebhooks),
		}},
		Storage: admissionregistrationv1.SchemeGroupVersion,
		Prefix:  "/registry/mutatingwebhookconfigurations",
		New:     api.New[admissionregistrationv1.MutatingWebhookConfiguration], NewList: api.NewList[admissionregistrationv1.MutatingWebhookConfigurationList],
		PlainFinalizers: true,
		Rules: api.For[*admissionregistrationv1.MutatingWebhookConfiguration]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, w *admissionregistrationv1.MutatingWebhookConfiguration) {
				w.Generation = 1
			},
			PrepareForUpdate: func(_ context.Context, w, old *admissionregistrationv1.MutatingWebhookConfiguration) {
				if !reflect.DeepEqual(w.Webhooks, old.Webhooks) {
					w.Generation = old.Generation + 1
				}
			},
			Validate: func(w *admissionregistrationv1.MutatingWebhookConfiguration) field.ErrorList {
				return c.validateWebhooks(mutatingWebhooks(w), rulesFor(nil, nil, false))
			},
			ValidateUpdate: func(w, old *admissionregistrationv1.MutatingWebhookConfiguration) field.ErrorList {
				hooks := mutatingWebhooks(w)
				return c.validateWebhooks(hooks, rulesFor(hooks, mutatingWebhooks(old), true))
			},
			Warnings: func(w, _ *admissionregistrationv1.MutatingWebhookConfiguration) []string {
				return staticWarnings(w.Name)
			},
			Columns: webhookColumns(),
			Cells: func(w *admissionregistrationv1.MutatingWebhookConfiguration) []any {
				return []any{w.Name, int64(len(w.Webhooks)), table.Since(w.CreationTimestamp)}
			},
		}.Rules(),
	}
}

func validatingWebhookConfiguration() *api.Kind {
	c := newCompilers()
	return &api.Kind{
		Group: admissionregistrationv1.GroupName, Name: "ValidatingWebhookConfiguration", Resource: "validatingwebhookconfigurations", Singular: "validatingwebhookconfiguration",
		Categories: []string{"api-extensions"},
		Versions: []api.Version{{
			GroupVersion: admissionregistrationv1.SchemeGroupVersion,
			New:          api.New[admissionregistrationv1.ValidatingWebhookConfiguration], NewList: api.NewList[admissionregistrationv1.ValidatingWebhookConfigurationList],
			Default: api.Default(defaultValidatingWebhooks),
		}},
		Storage: admissionregistrationv1.SchemeGroupVersion,
		Prefix:  "/registry/validatingwebhookconfigurations",
		New:     api.New[admissionregistrationv1.ValidatingWebhookConfiguration], NewList: api.NewList[admissionregistrationv1.ValidatingWebhookConfigurationList],
		PlainFinalizers: true,
		Rules: api.For[*admissionregistrationv1.ValidatingWebhookConfiguration]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, w *admissionregistrationv1.ValidatingWebhookConfiguration) {
				w.Generation = 1
			},
			PrepareForUpdate: func(_ context.Context, w, old *admissionregistrationv1.ValidatingWebhookConfiguration) {
				if !reflect.DeepEqual(w.Webhooks, old.Webhooks) {
					w.Generation = old.Generation + 1
				}
			},
			Validate: func(w *admissionregistrationv1.ValidatingWebhookConfiguration) field.ErrorList {
				return c.validateWebhooks(validatingWebhooks(w), rulesFor(nil, nil, false))
			},
			ValidateUpdate: func(w, old *admissionregistrationv1.ValidatingWebhookConfiguration) field.ErrorList {
				hooks := validatingWebhooks(w)
				return c.validateWebhooks(hooks, rulesFor(hooks, validatingWebhooks(old), true))
			},
			Warnings: func(w, _ *admissionregistrationv1.ValidatingWebhookConfiguration) []string {
				return staticWarnings(w.Name)
			},
			Columns: webhookColumns(),
			Cells: func(w *admissionregistrationv1.ValidatingWebhookConfiguration) []any {
				return []any{w.Name, int64(len(w.Webhooks)), table.Since(w.CreationTimestamp)}
			},
		}.Rules(),
	}
}
