// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Helm builds Helm 4 and 3 from their modules and puts them on the machine's
// search path, by the names helm and helm3. The build cache keeps what is
// compiled. The test is skipped where the modules cannot be had.
func (m *Machine) Helm(t testing.TB) {
	t.Helper()
	module := filepath.Join(m.Root, "test", "helm")
	if out, err := goTool(module, "mod", "download"); err != nil {
		t.Skipf("Helm's modules cannot be had here: %v\n%s", err, out)
	}
	for name, pkg := range map[string]string{"helm": "helm.sh/helm/v4/cmd/helm", "helm3": "helm.sh/helm/v3/cmd/helm"} {
		// As the tests themselves are built: most packages are compiled already.
		if out, err := goTool(module, "build", "-ldflags=-s -w", "-o", filepath.Join(m.Home, "bin", name), pkg); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
	}
}

func goTool(dir string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off")
	return cmd.CombinedOutput()
}
