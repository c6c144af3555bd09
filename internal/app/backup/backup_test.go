// SPDX-License-Identifier: Apache-2.0

package backup_test

import (
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"kaji/internal/app/backup"
	"kaji/internal/store"
	"kaji/internal/store/memory"
	"kaji/internal/store/pebble"
)

// TestOnline says that a snapshot that comes over HTTP is whole, is refused when
// it is cut off, and restores what was in the store.
func TestOnline(t *testing.T) {
	ctx, dir, log := t.Context(), t.TempDir(), slog.New(slog.DiscardHandler)
	s := memory.New()
	defer s.Close()
	if _, err := s.Commit(ctx, store.Txn{Ops: []store.Op{{Key: "/registry/a", Value: []byte("one")}}}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(backup.Serve(s, log))
	defer server.Close()
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: server.URL}
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c"}
	config.CurrentContext = "c"
	kubeconfig, file := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "snapshot")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	info, err := backup.Online(ctx, kubeconfig, file)
	if err != nil || info.Keys != 1 {
		t.Fatalf("%+v, %v", info, err)
	}
	if _, err := backup.Restore(ctx, file, filepath.Join(dir, "data"), log); err != nil {
		t.Fatal(err)
	}
	restored, err := pebble.Open(pebble.Config{Dir: filepath.Join(dir, "data", "store"), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	defer restored.Close()
	got, err := restored.Range(ctx, store.Range{Start: "/registry/", End: store.PrefixEnd("/registry/")})
	if err != nil || len(got.KVs) != 1 || string(got.KVs[0].Value) != "one" {
		t.Errorf("%+v, %v", got, err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data[:len(data)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Check(ctx, file); err == nil {
		t.Error("a snapshot that was cut off is taken for whole")
	}
}
