// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"net/url"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"kaji/internal/store"
	"kaji/internal/store/etcd"
	"kaji/internal/store/storetest"
)

// serve starts an etcd of one member, which ends with the test.
func serve(t *testing.T) (endpoint string) {
	t.Helper()
	local := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel, cfg.LogOutputs = t.TempDir(), "fatal", []string{"/dev/null"}
	cfg.ListenClientUrls, cfg.ListenPeerUrls = []url.URL{local}, []url.URL{local}
	cfg.UnsafeNoFsync = true
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	select {
	case <-server.Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		t.Fatal("etcd is not ready")
	}
	return "http://" + server.Clients[0].Addr().String()
}

// TestStore runs the suite on one etcd, emptied for every test.
func TestStore(t *testing.T) {
	endpoint := serve(t)
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{endpoint}})
		if err != nil {
			t.Fatal(err)
		}
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if _, err := client.Delete(t.Context(), "\x00", clientv3.WithFromKey()); err != nil {
			t.Fatal(err)
		}
		return s
	})
}
