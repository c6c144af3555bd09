// SPDX-License-Identifier: Apache-2.0

package local

import (
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
