// SPDX-License-Identifier: Apache-2.0

package kubeconfig

import (
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"kaji/internal/pki"
)

func TestMergeKeepsOtherContexts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "config")
	user := pki.Pair{Cert: []byte("cert"), Key: []byte("key")}
	for _, name := range []string{"work", "kaji"} {
		if err := Merge(path, New(name, "https://127.0.0.1:6443", []byte("ca"), user)); err != nil {
			t.Fatal(err)
		}
	}
	config, err := clientcmd.LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if config.CurrentContext != "kaji" || config.Contexts["work"] == nil {
		t.Fatalf("current context %q, contexts %v", config.CurrentContext, config.Contexts)
	}
	if err := Remove(path, "kaji"); err != nil {
		t.Fatal(err)
	}
	if config, err = clientcmd.LoadFromFile(path); err != nil {
		t.Fatal(err)
	}
	if config.Contexts["kaji"] != nil || config.Contexts["work"] == nil || config.CurrentContext != "" {
		t.Fatalf("after removal: current context %q, contexts %v", config.CurrentContext, config.Contexts)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Fatalf("the kubeconfig has mode %v", info.Mode())
	}
}

func TestMergeLeavesABrokenFileAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Merge(path, New("kaji", "https://127.0.0.1:6443", nil, pki.Pair{})); err == nil {
		t.Fatal("a broken kubeconfig was accepted")
	}
	if data, _ := os.ReadFile(path); string(data) != "{broken" {
		t.Fatalf("a broken kubeconfig was changed to %q", data)
	}
}
