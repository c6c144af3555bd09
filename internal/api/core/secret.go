// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
)

func secret() *api.Kind {
	return &api.Kind{
		Name: "Secret", Resource: "secrets", Singular: "secret",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.Secret], NewList: api.NewList[corev1.SecretList],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/secrets",
		New:     api.New[corev1.Secret], NewList: api.NewList[corev1.SecretList],
		AllowUnconditionalUpdate: true,
	}
}
