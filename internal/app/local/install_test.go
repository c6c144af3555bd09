// SPDX-License-Identifier: Apache-2.0

package local

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnitNames has the first cluster's unit answer to the name of a node agent,
// where nobody else does.
func TestUnitNames(t *testing.T) {
	for name, c := range map[string]struct {
		file, link string // of kubelet.service
		want       bool
	}{
		"free":               {want: true},
		"ours already":       {link: unitFile("first"), want: true},
		"another cluster's":  {link: unitFile("second")},
		"of the package":     {file: "/usr/lib/systemd/system/kubelet.service"},
		"somebody's by hand": {file: unitDir + "/kubelet.service"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			place := filepath.Join(root, unitDir, "kubelet.service")
			if c.file != "" {
				place = filepath.Join(root, c.file)
			}
			if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
				t.Fatal(err)
			}
			var err error
			if c.link != "" {
				err = os.Symlink(c.link, place)
			} else if c.file != "" {
				err = os.WriteFile(place, nil, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := Install(t.Context(), Cluster{Name: "first", Dir: defaultDir("first")}, root, []string{"--nodes=2"}, io.Discard); err != nil {
				t.Fatal(err)
			}
			raw, err := os.ReadFile(filepath.Join(root, unitFile("first")))
			if err != nil {
				t.Fatal(err)
			}
			journal := "kaji-first.service"
			if c.want {
				journal = "kubelet.service"
			}
			if got := strings.Contains(string(raw), "\nAlias=kubelet.service\n"); got != c.want {
				t.Errorf("alias %t:\n%s", got, raw)
			}
			if want := "ExecStart=/usr/local/bin/kaji server --name=first --log-journal=" + journal + " --nodes=2\n"; !strings.Contains(string(raw), want) {
				t.Errorf("no %q:\n%s", want, raw)
			}
		})
	}
}

// TestUninstallKeepsItself: the program stays that is to remove containers and
// data afterwards; another one goes with the last cluster.
func TestUninstallKeepsItself(t *testing.T) {
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		program func(path string) error
		stays   bool
	}{
		"this program": {func(path string) error { return os.Symlink(own, path) }, true},
		"another":      {func(path string) error { return os.WriteFile(path, nil, 0o755) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			root, cluster := t.TempDir(), Cluster{Name: "shop"}
			program, unit := filepath.Join(root, installedProgram), filepath.Join(root, unitFile(cluster.Name))
			for _, path := range []string{program, unit} {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(c.program(program), os.WriteFile(unit, nil, 0o644)); err != nil {
				t.Fatal(err)
			}
			if err := Uninstall(t.Context(), cluster, root, io.Discard); err != nil {
				t.Fatal(err)
			}
			if exists(unit) {
				t.Error("the unit is still there")
			}
			if exists(program) != c.stays {
				t.Errorf("the program is there: %v, want %v", !c.stays, c.stays)
			}
		})
	}
}
