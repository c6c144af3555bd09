// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

// componentStatus is never stored: the server makes the objects up when asked.
func componentStatus() *api.Kind {
	return &api.Kind{
		Name: "ComponentStatus", Resource: "componentstatuses", Singular: "componentstatus",
		ShortNames: []string{"cs"},
		Verbs:      []string{"get", "list"},
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.ComponentStatus], NewList: api.NewList[corev1.ComponentStatusList],
			Deprecated: 19,
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/componentstatuses",
		New:     api.New[corev1.ComponentStatus], NewList: api.NewList[corev1.ComponentStatusList],
		Rules: api.For[*corev1.ComponentStatus]{
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Status", "Status of the component conditions"),
				table.String("Message", "Message of the component conditions"),
				table.String("Error", "Error of the component conditions"),
			},
			Cells: componentCells,
		}.Rules(),
	}
}

func componentCells(c *corev1.ComponentStatus) []any {
	for _, condition := range c.Conditions {
		if condition.Type != corev1.ComponentHealthy {
			continue
		}
		state := "Unhealthy"
		if condition.Status == corev1.ConditionTrue {
			state = "Healthy"
		}
		return []any{c.Name, state, condition.Message, condition.Error}
	}
	return []any{c.Name, "Unknown", "", ""}
}
