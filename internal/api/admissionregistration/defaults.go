// SPDX-License-Identifier: Apache-2.0

package admissionregistration

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// setDefault gives a field that is absent its default.
func setDefault[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

func defaultRules(rules []admissionregistrationv1.RuleWithOperations) {
	for i := range rules {
		setDefault(&rules[i].Scope, admissionregistrationv1.AllScopes)
	}
}

func defaultClient(c *admissionregistrationv1.WebhookClientConfig) {
	if c.Service != nil {
		setDefault(&c.Service.Port, 443)
	}
}

func defaultMutatingWebhooks(c *admissionregistrationv1.MutatingWebhookConfiguration) {
	for i := range c.Webhooks {
		h := &c.Webhooks[i]
		setDefault(&h.FailurePolicy, admissionregistrationv1.Fail)
		setDefault(&h.MatchPolicy, admissionregistrationv1.Equivalent)
		setDefault(&h.NamespaceSelector, metav1.LabelSelector{})
		setDefault(&h.ObjectSelector, metav1.LabelSelector{})
		setDefault(&h.TimeoutSeconds, 10)
		setDefault(&h.ReinvocationPolicy, admissionregistrationv1.NeverReinvocationPolicy)
		defaultRules(h.Rules)
		defaultClient(&h.ClientConfig)
	}
}

func defaultValidatingWebhooks(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
	for i := range c.Webhooks {
		h := &c.Webhooks[i]
		setDefault(&h.FailurePolicy, admissionregistrationv1.Fail)
		setDefault(&h.MatchPolicy, admissionregistrationv1.Equivalent)
		setDefault(&h.NamespaceSelector, metav1.LabelSelector{})
		setDefault(&h.ObjectSelector, metav1.LabelSelector{})
		setDefault(&h.TimeoutSeconds, 10)
		defaultRules(h.Rules)
		defaultClient(&h.ClientConfig)
	}
}

func defaultMatch(m *admissionregistrationv1.MatchResources) {
	if m == nil {
		return
	}
	setDefault(&m.MatchPolicy, admissionregistrationv1.Equivalent)
	setDefault(&m.NamespaceSelector, metav1.LabelSelector{})
	setDefault(&m.ObjectSelector, metav1.LabelSelector{})
	for _, rules := range [][]admissionregistrationv1.NamedRuleWithOperations{m.ResourceRules, m.ExcludeResourceRules} {
		for i := range rules {
			setDefault(&rules[i].Scope, admissionregistrationv1.AllScopes)
		}
	}
}
