// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// layers orders the folders below internal/ from the ground up. A package may
// import its own folder and folders of lower layers.
var layers = map[string]int{
	"lifecycle": 0, "vfs": 0, "pki": 0, "metric": 0, "featuregate": 0, "archtest": 0,
	"api":   1,
	"store": 2, "client": 2, "cri": 2, "podnet": 2, "cloud": 2,
	"netfilter": 2,
	"container": 3, "cni": 3,
	"apiserver": 4, "controller": 4, "scheduler": 4, "kubelet": 4, "proxy": 4, "policy": 4,
	"dns": 4, "provisioner": 4, "ingress": 4, "loadbalancer": 4, "dashboard": 4, "monitor": 4,
	"app": 5,
}

// bans lists what may be imported only below the named prefixes, and why.
var bans = []struct {
	path    string
	allowed []string
	why     string
}{
	{"k8s.io/kubernetes", nil, "kaji is written from the ground up"},
	{"k8s.io/apiserver/pkg/server", []string{"k8s.io/apiserver/pkg/server/options/encryptionconfig"}, "the generic server is not the engine"},
	{"k8s.io/apiserver/pkg/registry", nil, "the generic registry is not the engine"},
	{"github.com/k3s-io", nil, "kaji is written from the ground up"},
	{"github.com/rancher", nil, "kaji is written from the ground up"},
	{"github.com/opencontainers/runc", []string{"internal/container/oci", "cmd/kaji-init"}, "libcontainer stays behind container/oci"},
	{"github.com/google/nftables", []string{"internal/netfilter", "internal/proxy", "internal/policy", "internal/cni", "internal/loadbalancer"}, "the kernel's rules have few writers"},
	{"k8s.io/kubectl/pkg/cmd", []string{"cmd/kubectl"}, "its package initialisation costs 20 ms and 7 MB"},
	{"helm.sh/helm", []string{"test"}, "its package initialisation costs as much again"},
	{"github.com/cockroachdb/pebble", []string{"internal/store", "internal/vfs"}, "one door to the disk"},
}

// pluginParents hold children that must not import one another.
var pluginParents = []string{"internal/controller", "internal/scheduler/plugin", "internal/kubelet/volume"}

// sharedRules are children that hold a rule several siblings need; they import
// no sibling themselves.
var sharedRules = map[string]bool{
	"internal/controller/queue": true, "internal/controller/balance": true, "internal/controller/meter": true, "internal/controller/event": true, "internal/controller/podstate": true,
	"internal/controller/served": true, "internal/controller/podend": true, "internal/controller/trigger": true,
	"internal/controller/expect": true, "internal/controller/adopt": true, "internal/controller/history": true,
	"internal/apiserver/admission/toleration": true,
}

func TestImports(t *testing.T) {
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			target, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			check(t, filepath.ToSlash(rel), target)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, file, target string) {
	t.Helper()
	dir := file[:max(strings.LastIndex(file, "/"), 0)]
	for _, ban := range bans {
		if under(target, ban.path) && !allowed(dir, target, ban.allowed) {
			t.Errorf("%s imports %s: %s", file, target, ban.why)
		}
	}
	inner, ok := strings.CutPrefix(target, "kaji/")
	if !ok || strings.HasSuffix(file, "_test.go") {
		return // tests may stand on kajitest, which stands on everything
	}
	for _, parent := range pluginParents {
		if from, to := child(dir, parent), child(inner, parent); from != "" && to != "" && from != to && !sharedRules[inner] {
			t.Errorf("%s imports its sibling %s", file, target)
		}
	}
	from, fromLayer := folder(dir)
	to, toLayer := folder(inner)
	if from == "" || to == "" || from == to {
		return
	}
	if toLayer > fromLayer || toLayer == fromLayer && fromLayer >= 4 {
		t.Errorf("%s (layer %d) imports %s (layer %d)", file, fromLayer, target, toLayer)
	}
}

func under(path, prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }

func allowed(dir, target string, exceptions []string) bool {
	for _, e := range exceptions {
		if under(dir, e) || under(target, e) {
			return true
		}
	}
	return false
}

func child(path, parent string) string {
	rest, ok := strings.CutPrefix(path, parent+"/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// folder returns the first folder below internal/ and its layer; engines of a
// seam (store/pebble, client/remote, cloud/local) count as layer 3.
func folder(path string) (string, int) {
	rest, ok := strings.CutPrefix(path, "internal/")
	if !ok {
		return "", 0
	}
	name, _, _ := strings.Cut(rest, "/")
	return name, layers[name]
}

// TestEveryFolderHasALayer keeps the table above complete.
func TestEveryFolderHasALayer(t *testing.T) {
	dirs, err := filepath.Glob(filepath.Join("..", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if _, ok := layers[filepath.Base(dir)]; !ok {
			t.Errorf("internal/%s has no layer", filepath.Base(dir))
		}
	}
}
