// SPDX-License-Identifier: Apache-2.0

// Package admissionregistration is the group admissionregistration.k8s.io as data: webhook configurations and admission policies.
// Package catalog lists its kinds; it never reads the state of a cluster.
package admissionregistration

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		mutatingWebhookConfiguration(),
		validatingWebhookConfiguration(),
		validatingAdmissionPolicy(),
		validatingAdmissionPolicyBinding(),
		mutatingAdmissionPolicy(),
		mutatingAdmissionPolicyBinding(),
	}
}
