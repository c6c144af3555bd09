// SPDX-License-Identifier: Apache-2.0

package corefile

import (
	"strings"
	"testing"
	"time"
)

func TestDefault(t *testing.T) {
	blocks, err := Parse(Default("cluster.local"))
	if err != nil {
		t.Fatal(err)
	}
	if len(blocks) != 1 {
		t.Fatalf("%d blocks", len(blocks))
	}
	b := blocks[0]
	if b.Zone != "." || b.Kubernetes == nil || b.Kubernetes.Domain != "cluster.local" || b.Kubernetes.TTL != 30 || !b.Kubernetes.Pods || !b.Kubernetes.Fallthrough ||
		b.Forward == nil || b.Forward.To[0] != "/etc/resolv.conf" || b.CacheTTL != 30*time.Second {
		t.Errorf("%+v", b)
	}
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "no block",
		"errors":                                "line 1: a block begins",
		". {\n errors":                          "never closed",
		". {\n kubernetes {\n ttl 30\n":         "never closed",
		". {\n teleport\n}":                     `line 2: the plug-in "teleport" is not supported`,
		". {\n kubernetes\n}":                   "name the cluster's domain",
		". {\n forward . nowhere\n}":            `"nowhere" is no address`,
		". {\n kubernetes a {\n ttl 9999\n}\n}": "ttl must be in range",
		". {\n hosts /etc/hosts\n}":             "files are not supported",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Default("cluster.local"))
	f.Add("a b:53 {\n hosts {\n 1.2.3.4 x\n }\n}\n")
	f.Fuzz(func(t *testing.T, text string) {
		blocks, err := Parse(text)
		if err == nil && len(blocks) == 0 {
			t.Error("nothing, and no error")
		}
	})
}
