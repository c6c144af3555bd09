// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
)

// Every component says with --version which Kubernetes it is.
func TestVersionFlag(t *testing.T) {
	for _, verb := range versioned {
		root := newRoot()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs([]string{verb, "--version"})
		if err := root.Execute(); err != nil || !strings.HasPrefix(out.String(), "Kubernetes v") {
			t.Errorf("%s: %v, %s", verb, err, &out)
		}
	}
}
