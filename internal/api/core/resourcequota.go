// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
)

func resourceQuota() *api.Kind {
	return &api.Kind{
		Name: "ResourceQuota", Resource: "resourcequotas", Singular: "resourcequota",
		ShortNames: []string{"quota"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.ResourceQuota], NewList: api.NewList[corev1.ResourceQuotaList],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/resourcequotas",
		New:     api.New[corev1.ResourceQuota], NewList: api.NewList[corev1.ResourceQuotaList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
