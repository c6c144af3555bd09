// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	schedulingv1 "k8s.io/api/scheduling/v1"

	"kaji/internal/api"
)

func priorityClass() *api.Kind {
	return &api.Kind{
		Group: schedulingv1.GroupName, Name: "PriorityClass", Resource: "priorityclasses", Singular: "priorityclass",
		ShortNames: []string{"pc"},
		Versions: []api.Version{{
			GroupVersion: schedulingv1.SchemeGroupVersion,
			New:          api.New[schedulingv1.PriorityClass], NewList: api.NewList[schedulingv1.PriorityClassList],
		}},
		Storage: schedulingv1.SchemeGroupVersion,
		Prefix:  "/registry/priorityclasses",
		New:     api.New[schedulingv1.PriorityClass], NewList: api.NewList[schedulingv1.PriorityClassList],
		AllowUnconditionalUpdate: true,
	}
}
