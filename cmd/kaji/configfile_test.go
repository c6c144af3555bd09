// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A file gives flags of every sort; the command line comes first, and what the
// file must not say is refused.
func TestConfigFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kaji.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("nodes: 3\ncluster-cidr: [10.1.0.0/16, 'fd00::/64']\nfeature-gates: {A: true, B: false}\ngateway-api: false\nname: other\n")
	cmd := upCommand()
	if err := cmd.ParseFlags([]string{"--config=" + file, "--nodes=2"}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.PreRunE(cmd, nil); err != nil {
		t.Fatal(err)
	}
	got := given(cmd.Flags())
	want := []string{"--cluster-cidr=10.1.0.0/16", "--cluster-cidr=fd00::/64", "--feature-gates=A=true,B=false", "--gateway-api=false", "--nodes=2"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if name := cmd.Flag("name").Value.String(); name != "other" {
		t.Errorf("name is %q", name)
	}
	for text, want := range map[string]string{
		"node: 3":             "there is no flag --node;",
		"nodes: many":         "invalid syntax",
		"- nodes":             "want an object",
		"nodes:":              "has no value",
		"cluster-cidr: [[a]]": "plain values",
	} {
		write(text)
		cmd := upCommand()
		if err := cmd.ParseFlags([]string{"--config=" + file}); err != nil {
			t.Fatal(err)
		}
		if err := cmd.PreRunE(cmd, nil); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// The help of verbs with upstream's flags fits a screen; --all shows the rest.
func TestShortHelp(t *testing.T) {
	for _, verb := range []string{"up", "server", "install", "apiserver", "controller-manager", "scheduler", "kubelet", "proxy", "cloud-controller-manager", "etcd"} {
		help := func(args ...string) string {
			root := newRoot()
			var out bytes.Buffer
			root.SetOut(&out)
			root.SetArgs(append([]string{verb, "--help"}, args...))
			if err := root.Execute(); err != nil {
				t.Fatal(err)
			}
			return out.String()
		}
		short, long := help(), help("--all")
		if n := strings.Count(short, "\n"); n > 60 {
			t.Errorf("kaji %s --help has %d lines", verb, n)
		}
		if strings.Count(long, "\n") < strings.Count(short, "\n") || strings.Contains(short, "no effect here") {
			t.Errorf("kaji %s --help --all:\n%s", verb, long)
		}
	}
}
