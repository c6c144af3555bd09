// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"errors"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"kaji/internal/pki"
	"kaji/internal/store"
	"kaji/internal/store/etcd"
	"kaji/internal/store/storetest"
)

// serve starts an etcd of one member, which ends with the test.
func serve(t *testing.T, change ...func(*embed.Config)) (endpoint string) {
	t.Helper()
	local := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel, cfg.LogOutputs = t.TempDir(), "fatal", []string{"/dev/null"}
	cfg.ListenClientUrls, cfg.ListenPeerUrls = []url.URL{local}, []url.URL{local}
	cfg.UnsafeNoFsync = true
	for _, f := range change {
		f(cfg)
	}
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
	return cfg.ListenClientUrls[0].Scheme + "://" + server.Clients[0].Addr().String()
}

// TestTLS: the members' certificates are checked against the authority that was
// named, and the client shows its own where they ask for it.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca, err := pki.EnsureCA(dir, "ca", "etcd-ca")
	if err != nil {
		t.Fatal(err)
	}
	strange, err := pki.EnsureCA(dir, "strange", "strange-ca")
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range []struct {
		ca   *pki.CA
		name string
		leaf pki.Leaf
	}{
		{ca, "server", pki.Leaf{CommonName: "etcd", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Client: true}},
		{ca, "client", pki.Leaf{CommonName: "kube-apiserver-etcd-client", Client: true}},
		{strange, "stranger", pki.Leaf{CommonName: "kube-apiserver-etcd-client", Client: true}},
	} {
		if _, err := leaf.ca.Ensure(dir, leaf.name, leaf.leaf); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	endpoint := serve(t, func(c *embed.Config) {
		c.ListenClientUrls[0].Scheme = "https"
		c.ClientTLSInfo = transport.TLSInfo{CertFile: file("server.crt"), KeyFile: file("server.key"), TrustedCAFile: file("ca.crt"), ClientCertAuth: true}
	})
	open := func(endpoint, ca, client string) error {
		c := etcd.Config{Endpoints: []string{endpoint}, CAFile: file(ca + ".crt"), DialTimeout: 20 * time.Second, Logger: slog.New(slog.DiscardHandler)}
		if client != "" {
			c.CertFile, c.KeyFile = file(client+".crt"), file(client+".key")
		} else {
			c.DialTimeout = 2 * time.Second
		}
		if client == "stranger" || ca == "strange" {
			c.DialTimeout = 2 * time.Second
		}
		s, err := etcd.Open(t.Context(), c)
		if err != nil {
			return err
		}
		return s.Close()
	}
	if err := open(endpoint, "ca", "client"); err != nil {
		t.Errorf("known to each other: %v", err)
	}
	for _, c := range [][2]string{{"ca", ""}, {"ca", "stranger"}, {"strange", "client"}} {
		if err := open(endpoint, c[0], c[1]); err == nil {
			t.Errorf("members of %s let %q in", c[0], c[1])
		}
	}
	if err := open("http"+strings.TrimPrefix(endpoint, "https"), "ca", ""); err == nil {
		t.Error("members that speak TLS answer in plain text")
	}
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
