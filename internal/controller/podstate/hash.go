// SPDX-License-Identifier: Apache-2.0

package podstate

import (
	"fmt"
	"hash/fnv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/dump"
	"k8s.io/apimachinery/pkg/util/rand"
)

// TemplateHash returns the hash that names the sets and revisions of a pod
// template; collisions, the count of names that were taken, changes it.
func TemplateHash(template *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%v", dump.ForHash(*template))
	if collisions != nil {
		var digits [8]byte
		for i := range 4 {
			digits[i] = byte(uint32(*collisions) >> (8 * i))
		}
		h.Write(digits[:])
	}
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}
