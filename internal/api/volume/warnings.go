// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ClaimWarnings are the warnings for the spec of a claim at p.
func ClaimWarnings(spec *corev1.PersistentVolumeClaimSpec, p *field.Path) []string {
	var out []string
	for _, list := range []struct {
		name      string
		resources corev1.ResourceList
	}{{"requests", spec.Resources.Requests}, {"limits", spec.Resources.Limits}} {
		if q, ok := list.resources[corev1.ResourceStorage]; ok && q.MilliValue()%1000 != 0 {
			out = append(out, fmt.Sprintf("%s: fractional byte value %q is invalid, must be an integer",
				p.Child("resources", list.name).Key(string(corev1.ResourceStorage)), q.String()))
		}
	}
	return out
}
