// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"errors"
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

// TestCompacts: of two engines on one etcd, both set to compact, history ages.
func TestCompacts(t *testing.T) {
	cfg := etcd.Config{Endpoints: []string{serve(t)}, CompactInterval: 50 * time.Millisecond}
	var stores [2]*etcd.Store
	for i := range stores {
		s, err := etcd.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		stores[i] = s
	}
	txn := store.Txn{Ops: []store.Op{{Key: "/a", Value: []byte("1")}}}
	first, err := stores[0].Commit(t.Context(), txn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stores[1].Commit(t.Context(), txn); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		_, err := stores[0].Range(t.Context(), store.Range{Start: "/a", Revision: first.Revision})
		if errors.Is(err, store.ErrCompacted) {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("history stays: %v", err)
		}
	}
	if kv, _, _, err := stores[0].Get(t.Context(), "/a"); err != nil || kv.Version != 2 {
		t.Errorf("%+v %v", kv, err)
	}
}
