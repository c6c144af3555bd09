// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
)

func configMap() *api.Kind {
	return &api.Kind{
		Name: "ConfigMap", Resource: "configmaps", Singular: "configmap",
		ShortNames: []string{"cm"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.ConfigMap], NewList: api.NewList[corev1.ConfigMapList],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/configmaps",
		New:     api.New[corev1.ConfigMap], NewList: api.NewList[corev1.ConfigMapList],
		AllowUnconditionalUpdate: true,
	}
}
