// SPDX-License-Identifier: Apache-2.0

package member_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"kaji/internal/store"
	"kaji/internal/store/etcd"
	"kaji/internal/store/etcd/member"
)

const patience = 60 * time.Second

// running is a member under test.
type running struct {
	*member.Member
	cancel context.CancelFunc
	done   chan error
}

func start(t *testing.T, cfg member.Config) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Member: member.New(cfg), cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- r.Run(ctx) }()
	return r
}

func (r *running) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	select {
	case err := <-r.done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("a member does not stop")
	}
}

// freeURL returns a loopback URL nobody listens on at present.
func freeURL(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// TestThreeMembers writes to three members, stops one, and goes on.
func TestThreeMembers(t *testing.T) {
	cluster := map[string][]string{}
	for i := range 3 {
		cluster[fmt.Sprint("m", i)] = []string{freeURL(t)}
	}
	members := map[string]*running{}
	for name, peers := range cluster {
		members[name] = start(t, member.Config{
			Name: name, Dir: t.TempDir(), Cluster: cluster, PeerURLs: peers, ClientURLs: []string{"http://127.0.0.1:0"},
		})
	}
	var endpoints []string
	for name, m := range members {
		select {
		case <-m.Ready():
			endpoints = append(endpoints, m.Endpoints()...)
		case err := <-m.done:
			t.Fatalf("%s: %v", name, err)
		case <-time.After(patience):
			t.Fatalf("%s is not ready", name)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := etcd.Open(ctx, etcd.Config{Endpoints: endpoints})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	write := func(value string) {
		t.Helper()
		// A leader may have to be found first.
		for {
			_, err := s.Commit(ctx, store.Txn{Ops: []store.Op{{Key: "/a", Value: []byte(value)}}})
			if err == nil {
				return
			}
			if ctx.Err() != nil {
				t.Fatal(err)
			}
		}
	}
	write("1")
	members["m0"].stop(t)
	write("2")
	kv, _, _, err := s.Get(ctx, "/a")
	if err != nil || string(kv.Value) != "2" {
		t.Errorf("%s %v", kv.Value, err)
	}
	members["m1"].stop(t)
	members["m2"].stop(t)
}

func TestBadURL(t *testing.T) {
	err := member.New(member.Config{Name: "m", Dir: t.TempDir(), ClientURLs: []string{"http://[bad"}}).Run(t.Context())
	if err == nil {
		t.Fatal("a malformed URL was accepted")
	}
}
