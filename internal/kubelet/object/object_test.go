// SPDX-License-Identifier: Apache-2.0

package object

import (
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// What is missing is named in the singular, as users know it from pods' events.
func TestNotFound(t *testing.T) {
	for resource, want := range map[string]string{"secrets": `secret "x" not found`, "configmaps": `configmap "x" not found`} {
		err := key{resource, "default", "x"}.notFound()
		if !apierrors.IsNotFound(err) || err.Error() != want {
			t.Errorf("%s: %v, want %s", resource, err, want)
		}
	}
}
