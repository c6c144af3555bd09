// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"context"
	"strings"

	"k8s.io/apiserver/pkg/warning"
)

// Warn sends complaints of strict decoding as warnings, each line of a YAML
// error as one.
func Warn(ctx context.Context, strict []error) {
	for _, err := range strict {
		text := err.Error()
		lines := []string{text}
		for _, prefix := range []string{"yaml: unmarshal errors:\n", "error converting YAML to JSON: yaml: unmarshal errors:\n"} {
			if rest, ok := strings.CutPrefix(text, prefix); ok {
				lines = strings.Split(rest, "\n")
				break
			}
		}
		for _, line := range lines {
			warning.AddWarning(ctx, "", strings.TrimSpace(line))
		}
	}
}
