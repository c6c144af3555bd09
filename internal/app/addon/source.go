// SPDX-License-Identifier: Apache-2.0

package addon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// DNS and the following are the add-ons that come with the program.
const (
	DNS     = "dns"
	Ingress = "ingress"
	Join    = "join"
	Metrics = "metrics"
	Policy  = "policy"
	Storage = "storage"
)

// abouts say what each add-on is, in the order in which they are applied.
var abouts = []struct{ name, about string }{
	{DNS, "the cluster's name server, on every node"},
	{Ingress, "Ingresses and Gateways of the class kaji"},
	{Join, "what machines need to join; it cannot be left out"},
	{Metrics, "metrics.k8s.io, for kubectl top and autoscalers"},
	{Policy, "the enforcement of NetworkPolicies"},
	{Storage, "the default StorageClass, standard"},
}

// Names returns the add-ons that come with the program and may be left out.
func Names() []string {
	var out []string
	for _, a := range abouts {
		if a.name != Join {
			out = append(out, a.name)
		}
	}
	return out
}

// About returns what an add-on is; empty for an owner's.
func About(name string) string {
	for _, a := range abouts {
		if a.name == name {
			return a.about
		}
	}
	return ""
}

// Check refuses names that cannot be left out; the owner's add-ons are below dir.
func Check(off []string, dir string) ([]string, error) {
	all, err := All(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range off {
		switch {
		case name == Join:
			return nil, fmt.Errorf("the nodes need %s", name)
		case !slices.Contains(all, name):
			return nil, fmt.Errorf("there is no add-on %q; `kaji addon list` names all", name)
		}
	}
	return off, nil
}

// source is one add-on's manifests.
type source struct {
	name  string
	files fs.FS
}

// sources are all add-ons: those of the program, then the owner's by name.
func sources(dir string) ([]source, error) {
	own, err := folders(dir)
	if err != nil {
		return nil, err
	}
	var out []source
	for _, a := range abouts {
		files, err := fs.Sub(manifests, path.Join("manifests", a.name))
		if err != nil {
			return nil, err
		}
		if slices.Contains(own, a.name) {
			files = os.DirFS(filepath.Join(dir, a.name))
		}
		out = append(out, source{a.name, files})
	}
	for _, name := range own {
		if About(name) == "" {
			out = append(out, source{name, os.DirFS(filepath.Join(dir, name))})
		}
	}
	return out, nil
}

// folders are the owner's add-ons, by name.
func folders(dir string) ([]string, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			out = append(out, e.Name())
		}
	}
	return out, err
}

// All returns the names of all add-ons, the owner's below dir among them.
func All(dir string) ([]string, error) {
	all, err := sources(dir)
	var out []string
	for _, s := range all {
		out = append(out, s.name)
	}
	return out, err
}

// Text returns the manifests of an add-on as they are written.
func Text(dir, name string) (string, error) {
	all, err := sources(dir)
	if err != nil {
		return "", err
	}
	for _, s := range all {
		if s.name != name {
			continue
		}
		files, err := fs.Glob(s.files, "*.yaml")
		var parts []string
		for _, file := range files {
			data, readErr := fs.ReadFile(s.files, file)
			err = errors.Join(err, readErr)
			parts = append(parts, strings.TrimSuffix(string(data), "\n")+"\n")
		}
		return strings.Join(parts, "---\n"), err
	}
	return "", fmt.Errorf("there is no add-on %q; `kaji addon list` names all", name)
}

// Stamp changes when a file of the owner's add-ons does.
func Stamp(dir string) string {
	var b strings.Builder
	// What cannot be read now is looked at again.
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, err := d.Info(); err == nil {
				fmt.Fprintf(&b, "%s %d %d;", path, info.ModTime().UnixNano(), info.Size())
			}
		}
		return nil
	})
	return b.String()
}
