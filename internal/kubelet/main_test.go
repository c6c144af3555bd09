// SPDX-License-Identifier: Apache-2.0

package kubelet_test

import (
	"fmt"
	"os"
	"testing"

	"kaji/internal/container/cgroup"
)

// cgroupParent holds the control groups of all pods that tests run.
const cgroupParent = "/kaji-kubelet-test"

func TestMain(m *testing.M) {
	code := m.Run()
	if err := (cgroup.Driver{}).Remove(cgroupParent); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}
