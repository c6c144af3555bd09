// SPDX-License-Identifier: Apache-2.0

package autoscaling

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"kaji/internal/api"
)

func horizontalPodAutoscaler() *api.Kind {
	return &api.Kind{
		Group: autoscalingv2.GroupName, Name: "HorizontalPodAutoscaler", Resource: "horizontalpodautoscalers", Singular: "horizontalpodautoscaler",
		ShortNames: []string{"hpa"}, Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: autoscalingv2.SchemeGroupVersion,
			New:          api.New[autoscalingv2.HorizontalPodAutoscaler], NewList: api.NewList[autoscalingv2.HorizontalPodAutoscalerList],
		}},
		Storage: autoscalingv2.SchemeGroupVersion,
		Prefix:  "/registry/horizontalpodautoscalers",
		New:     api.New[autoscalingv2.HorizontalPodAutoscaler], NewList: api.NewList[autoscalingv2.HorizontalPodAutoscalerList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
