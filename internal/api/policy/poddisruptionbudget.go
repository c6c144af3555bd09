// SPDX-License-Identifier: Apache-2.0

package policy

import (
	policyv1 "k8s.io/api/policy/v1"

	"kaji/internal/api"
)

func podDisruptionBudget() *api.Kind {
	return &api.Kind{
		Group: policyv1.GroupName, Name: "PodDisruptionBudget", Resource: "poddisruptionbudgets", Singular: "poddisruptionbudget",
		ShortNames: []string{"pdb"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: policyv1.SchemeGroupVersion,
			New:          api.New[policyv1.PodDisruptionBudget], NewList: api.NewList[policyv1.PodDisruptionBudgetList],
		}},
		Storage: policyv1.SchemeGroupVersion,
		Prefix:  "/registry/poddisruptionbudgets",
		New:     api.New[policyv1.PodDisruptionBudget], NewList: api.NewList[policyv1.PodDisruptionBudgetList],
		Status: &api.Subresource{Name: "status"},
	}
}
