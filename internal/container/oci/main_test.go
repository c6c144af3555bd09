// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"fmt"
	"os"
	"testing"

	"kaji/internal/container/cgroup"
)

// parent holds the control groups of all tests.
const parent = "/kaji-oci-test"

func TestMain(m *testing.M) {
	code := m.Run()
	if err := (cgroup.Driver{}).Remove(parent); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}
