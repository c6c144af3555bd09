// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// Configuration decodes the configuration of a plug-in, YAML or JSON, that has
// to be of a version and kind. Unknown fields are errors.
func Configuration(data []byte, apiVersion, kind string, into any) error {
	var is metav1.TypeMeta
	if err := yaml.Unmarshal(data, &is); err != nil {
		return err
	}
	if is.APIVersion != apiVersion || is.Kind != kind {
		return fmt.Errorf("no kind %q is registered for version %q; want %s of %s", is.Kind, is.APIVersion, kind, apiVersion)
	}
	return yaml.UnmarshalStrict(data, into)
}
