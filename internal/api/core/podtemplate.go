// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
)

func podTemplate() *api.Kind {
	return &api.Kind{
		Name: "PodTemplate", Resource: "podtemplates", Singular: "podtemplate",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.PodTemplate], NewList: api.NewList[corev1.PodTemplateList],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/podtemplates",
		New:     api.New[corev1.PodTemplate], NewList: api.NewList[corev1.PodTemplateList],
		AllowUnconditionalUpdate: true,
	}
}
