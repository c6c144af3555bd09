// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
)

func serviceAccount() *api.Kind {
	return &api.Kind{
		Name: "ServiceAccount", Resource: "serviceaccounts", Singular: "serviceaccount",
		ShortNames: []string{"sa"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.ServiceAccount], NewList: api.NewList[corev1.ServiceAccountList],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/serviceaccounts",
		New:     api.New[corev1.ServiceAccount], NewList: api.NewList[corev1.ServiceAccountList],
		AllowUnconditionalUpdate: true,
	}
}
