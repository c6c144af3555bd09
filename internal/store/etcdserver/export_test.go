// SPDX-License-Identifier: Apache-2.0

package etcdserver_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// TestSnapshot takes a snapshot with etcd's client and lets a real etcd begin
// from it: keys, revisions and leases are there.
func TestSnapshot(t *testing.T) {
	c := client(t)
	ctx := t.Context()
	lease, err := c.Grant(ctx, 3600)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1200 {
		if _, err := c.Put(ctx, fmt.Sprintf("/k/%04d", i%1100), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Put(ctx, "/leased", "x", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	last, err := c.Delete(ctx, "/k/0000")
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	db, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if want := sha256.Sum256(db); len(db)%512 != 0 || !bytes.Equal(sum, want[:]) {
		t.Fatalf("%d bytes, and the checksum is not that of the database", len(db))
	}

	restored := beginFrom(t, db)
	got, err := restored.Get(ctx, "/k/", clientv3.WithPrefix())
	if err != nil || got.Count != 1099 {
		t.Fatalf("%d keys, %v", got.Count, err)
	}
	if kv := got.Kvs[0]; string(kv.Key) != "/k/0001" || string(kv.Value) != "1101" || kv.Version != 2 {
		t.Errorf("%v", kv)
	}
	if got.Header.Revision < last.Header.Revision {
		t.Errorf("revision %d, it was %d", got.Header.Revision, last.Header.Revision)
	}
	left, err := restored.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	if err != nil || left.GrantedTTL != 3600 || len(left.Keys) != 1 {
		t.Errorf("%+v %v", left, err)
	}
}

// beginFrom starts an etcd on a database alone, as a new cluster.
func beginFrom(t *testing.T, db []byte) *clientv3.Client {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel, cfg.LogOutputs = t.TempDir(), "fatal", []string{"/dev/null"}
	local := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.ListenPeerUrls = []url.URL{local}, []url.URL{local}
	snap := filepath.Join(cfg.Dir, "member", "snap")
	if err := os.MkdirAll(snap, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(snap, "db"), db, 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(patience):
		t.Fatal("etcd is not ready")
	}
	return dial(t, e.Clients[0].Addr().String())
}
