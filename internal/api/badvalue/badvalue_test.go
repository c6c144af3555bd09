// SPDX-License-Identifier: Apache-2.0

package badvalue

import (
	"encoding/json"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestOf(t *testing.T) {
	one := intstr.FromInt32(1)
	for name, c := range map[string]struct {
		value any
		want  string
	}{
		"nested pointer": {
			appsv1.DeploymentStrategy{Type: "X", RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &one}},
			`{"Type":"X","RollingUpdate":{"MaxUnavailable":null,"MaxSurge":1}}`,
		},
		"nil pointer": {(*appsv1.DeploymentStrategy)(nil), `null`},
		"meta types keep their names": {
			&metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
			`{"matchLabels":{"a":"b"}}`,
		},
		"embedded metadata": {
			[]corev1.PodTemplateSpec{{ObjectMeta: metav1.ObjectMeta{Name: "n"}}}[0].ObjectMeta,
			`{"name":"n"}`,
		},
		"quantities": {
			corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}},
			`{"Limits":null,"Requests":{"storage":"1Gi"}}`,
		},
		"embedded in front": {
			struct {
				corev1.ConfigMapKeySelector
			}{corev1.ConfigMapKeySelector{Key: "k"}}.ConfigMapKeySelector,
			`{"Name":"","Key":"k","Optional":null}`,
		},
	} {
		got, err := json.Marshal(Of(c.value))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: got %s (%v), want %s", name, got, err, c.want)
		}
	}
}
