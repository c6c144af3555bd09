// SPDX-License-Identifier: Apache-2.0

package etcdserver_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"kaji/internal/store"
	"kaji/internal/store/etcd"
	"kaji/internal/store/etcdserver"
	"kaji/internal/store/memory"
	"kaji/internal/store/pebble"
	"kaji/internal/store/storetest"
)

const patience = 30 * time.Second

// serve runs a server over s, and returns its address and what stops it.
func serve(t *testing.T, s store.Store, cfg etcdserver.Config) (address string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cfg.Store, cfg.Listener = s, l
	done := make(chan error, 1)
	go func() { done <- etcdserver.New(cfg).Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(patience):
			t.Error("the server does not end")
		}
	}
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func dial(t *testing.T, address string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, DialTimeout: patience, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // a test may have closed it
	return c
}

func client(t *testing.T) *clientv3.Client {
	t.Helper()
	m := memory.New()
	t.Cleanup(func() { m.Close() })
	address, _ := serve(t, m, etcdserver.Config{})
	return dial(t, address)
}

// TestStore runs the suite on the engine for etcd against this server: what one
// side says the other understands.
func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		p, err := pebble.Open(pebble.Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		address, _ := serve(t, p, etcdserver.Config{})
		s, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{"http://" + address}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestTxn(t *testing.T) {
	c := client(t)
	ctx := t.Context()
	must := func(res *clientv3.TxnResponse, err error) *clientv3.TxnResponse {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	must(c.Txn(ctx).Then(clientv3.OpPut("a", "1"), clientv3.OpPut("b", "2")).Commit())
	for i, cmp := range []struct {
		clientv3.Cmp
		want bool
	}{
		{clientv3.Compare(clientv3.Value("a"), "=", "1"), true},
		{clientv3.Compare(clientv3.Value("a"), "!=", "1"), false},
		{clientv3.Compare(clientv3.Value("absent"), "=", "1"), false},
		{clientv3.Compare(clientv3.Value("absent"), "!=", "1"), false},
		{clientv3.Compare(clientv3.Version("a"), "=", 1), true},
		{clientv3.Compare(clientv3.Version("absent"), "=", 0), true},
		{clientv3.Compare(clientv3.CreateRevision("absent"), "=", 0), true},
		{clientv3.Compare(clientv3.ModRevision("a"), ">", 1), true},
		{clientv3.Compare(clientv3.ModRevision("a"), "<", 2), false},
		{clientv3.Compare(clientv3.LeaseValue("a"), "=", 0), true},
		{clientv3.Compare(clientv3.Version("a"), "=", 1).WithRange("c"), true},
		{clientv3.Compare(clientv3.Value("a"), "<", "2").WithRange("c"), false},
	} {
		if got := must(c.Txn(ctx).If(cmp.Cmp).Commit()); got.Succeeded != cmp.want {
			t.Errorf("compare %d: %v", i, got.Succeeded)
		}
	}

	// Reads of a transaction see its writes; deletions report what was there.
	res := must(c.Txn(ctx).Then(
		clientv3.OpPut("c", "3", clientv3.WithPrevKV()),
		clientv3.OpGet("a", clientv3.WithRange("z")),
		clientv3.OpDelete("a", clientv3.WithPrevKV()),
		clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Version("c"), "=", 1)},
			[]clientv3.Op{clientv3.OpPut("d", "4")}, []clientv3.Op{clientv3.OpPut("e", "5")}),
	).Commit())
	kvs := res.Responses[1].GetResponseRange().Kvs
	if len(kvs) != 3 || string(kvs[2].Value) != "3" || kvs[2].ModRevision != res.Header.Revision {
		t.Errorf("read inside: %v", kvs)
	}
	if d := res.Responses[2].GetResponseDeleteRange(); d.Deleted != 1 || string(d.PrevKvs[0].Value) != "1" {
		t.Errorf("deletion: %v", d)
	}
	if !res.Responses[3].GetResponseTxn().Succeeded {
		t.Error("the inner compare does not see the outer put")
	}
	got, err := c.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil || fmt.Sprint(keysOf(got)) != "[b c d]" || got.Kvs[0].Value != nil {
		t.Fatalf("%v %v", keysOf(got), err)
	}

	for _, ops := range [][]clientv3.Op{
		{clientv3.OpPut("x", "1"), clientv3.OpPut("x", "2")},
		{clientv3.OpPut("x", "1"), clientv3.OpDelete("w", clientv3.WithRange("y"))},
		{clientv3.OpPut("x", "1"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("x", "2")}, nil)},
	} {
		if _, err := c.Txn(ctx).Then(ops...).Commit(); !errors.Is(err, rpctypes.ErrDuplicateKey) {
			t.Errorf("a key written twice: %v", err)
		}
	}
	branches := clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("x", "1")}, []clientv3.Op{clientv3.OpPut("x", "2")})
	must(c.Txn(ctx).Then(branches).Commit())
	if _, err := c.Txn(ctx).Then(make129()...).Commit(); !errors.Is(err, rpctypes.ErrTooManyOps) {
		t.Errorf("too many operations: %v", err)
	}
	if _, err := c.Put(ctx, "", "x"); !errors.Is(err, rpctypes.ErrEmptyKey) {
		t.Errorf("empty key: %v", err)
	}
	if _, err := c.Put(ctx, "y", "", clientv3.WithIgnoreValue()); !errors.Is(err, rpctypes.ErrKeyNotFound) {
		t.Errorf("ignored value of an absent key: %v", err)
	}
}

func make129() (ops []clientv3.Op) {
	for i := range 129 {
		ops = append(ops, clientv3.OpPut(fmt.Sprint(i), ""))
	}
	return ops
}

func keysOf(r *clientv3.GetResponse) (keys []string) {
	for _, kv := range r.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

func TestRangeOptions(t *testing.T) {
	c := client(t)
	ctx := t.Context()
	var revisions []int64
	for _, kv := range []string{"k1=b", "k2=c", "k3=a", "k1=d"} {
		key, value, _ := strings.Cut(kv, "=")
		res, err := c.Put(ctx, key, value)
		if err != nil {
			t.Fatal(err)
		}
		revisions = append(revisions, res.Header.Revision)
	}
	for _, r := range []struct {
		name string
		opts []clientv3.OpOption
		want string
		more bool
	}{
		{"descending", []clientv3.OpOption{clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend)}, "[k3 k2 k1]", false},
		{"by value", []clientv3.OpOption{clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend)}, "[k3 k2 k1]", false},
		{"by modification", []clientv3.OpOption{clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortNone)}, "[k2 k3 k1]", false},
		{"newest created", clientv3.WithLastCreate(), "[k3]", true},
		{"by version", []clientv3.OpOption{clientv3.WithSort(clientv3.SortByVersion, clientv3.SortDescend), clientv3.WithLimit(1)}, "[k1]", true},
		{"limit", []clientv3.OpOption{clientv3.WithLimit(2)}, "[k1 k2]", true},
		{"modified since", []clientv3.OpOption{clientv3.WithMinModRev(revisions[2])}, "[k1 k3]", false},
		{"created before", []clientv3.OpOption{clientv3.WithMaxCreateRev(revisions[1])}, "[k1 k2]", false},
		{"old", []clientv3.OpOption{clientv3.WithRev(revisions[1])}, "[k1 k2]", false},
	} {
		res, err := c.Get(ctx, "k", append([]clientv3.OpOption{clientv3.WithPrefix()}, r.opts...)...)
		if err != nil || fmt.Sprint(keysOf(res)) != r.want || res.More != r.more {
			t.Errorf("%s: %v more=%v %v", r.name, keysOf(res), res.More, err)
		}
	}
	res, err := c.Get(ctx, "k", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || res.Count != 3 || len(res.Kvs) != 0 {
		t.Errorf("count: %+v %v", res, err)
	}
	if _, err := c.Get(ctx, "k", clientv3.WithRev(1000)); !errors.Is(err, rpctypes.ErrFutureRev) {
		t.Errorf("future: %v", err)
	}
}

func TestRangeStream(t *testing.T) {
	m := memory.New()
	defer m.Close()
	for i := range 1200 {
		txn := store.Txn{Ops: []store.Op{{Key: fmt.Sprintf("/%04d", i), Value: []byte("x")}}}
		if _, err := m.Commit(t.Context(), txn); err != nil {
			t.Fatal(err)
		}
	}
	address, _ := serve(t, m, etcdserver.Config{})
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := pb.NewKVClient(conn).RangeStream(t.Context(), &pb.RangeRequest{Key: []byte("/"), RangeEnd: []byte("0")})
	if err != nil {
		t.Fatal(err)
	}
	n, last := 0, (*pb.RangeResponse)(nil)
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		last = piece.RangeResponse
		n += len(last.Kvs)
	}
	if n != 1200 || last.Count != 1200 || last.Header.Revision != 1201 {
		t.Fatalf("%d keys, the last piece says %d at %v", n, last.Count, last.Header)
	}
}

func TestLease(t *testing.T) {
	dir := t.TempDir()
	open := func() (*pebble.Store, *clientv3.Client, func()) {
		p, err := pebble.Open(pebble.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		address, stop := serve(t, p, etcdserver.Config{})
		c := dial(t, address)
		return p, c, func() {
			_ = c.Close()
			stop()
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	_, c, end := open()
	ctx := t.Context()
	long, err := c.Grant(ctx, 3600)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b", "c"} {
		if _, err := c.Put(ctx, key, "x", clientv3.WithLease(long.ID)); err != nil {
			t.Fatal(err)
		}
	}
	// A put without the lease, and a deletion, take a key off it.
	if _, err := c.Put(ctx, "b", "y"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Delete(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, "a", "z", clientv3.WithIgnoreLease()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, "d", "x", clientv3.WithLease(12345)); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("an unknown lease: %v", err)
	}
	end()

	// All of it survives a restart.
	_, c, end = open()
	defer end()
	left, err := c.TimeToLive(ctx, long.ID, clientv3.WithAttachedKeys())
	if err != nil || left.GrantedTTL != 3600 || left.TTL < 3500 || len(left.Keys) != 1 || string(left.Keys[0]) != "a" {
		t.Fatalf("%+v %v", left, err)
	}
	got, err := c.Get(ctx, "a")
	if err != nil || got.Kvs[0].Lease != int64(long.ID) {
		t.Fatalf("%+v %v", got, err)
	}
	watch := c.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(got.Header.Revision+1))
	if _, err := c.Revoke(ctx, long.ID); err != nil {
		t.Fatal(err)
	}
	expectDelete(t, watch, "a")
	if got, err := c.Get(ctx, "", clientv3.WithPrefix()); err != nil || fmt.Sprint(keysOf(got)) != "[b]" {
		t.Errorf("after the revocation: %v %v", keysOf(got), err)
	}
	if gone, err := c.TimeToLive(ctx, long.ID); err != nil || gone.TTL != -1 {
		t.Errorf("a revoked lease: %+v %v", gone, err)
	}
	if _, err := c.Revoke(ctx, long.ID); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("revoked twice: %v", err)
	}

	short, err := c.Grant(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, "e", "x", clientv3.WithLease(short.ID)); err != nil {
		t.Fatal(err)
	}
	expectDelete(t, watch, "e")
}

// expectDelete reads a watch until a key is deleted.
func expectDelete(t *testing.T, watch clientv3.WatchChan, key string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case r := <-watch:
			if err := r.Err(); err != nil {
				t.Fatal(err)
			}
			for _, e := range r.Events {
				if strings.HasPrefix(string(e.Kv.Key), "\xff") {
					t.Errorf("a hidden key is shown: %q", e.Kv.Key)
				}
				if e.Type == clientv3.EventTypeDelete && string(e.Kv.Key) == key {
					return
				}
			}
		case <-deadline:
			t.Fatalf("%s is not deleted", key)
		}
	}
}

// TestLock: the client's own lock recipe works, keep-alives and all.
func TestLock(t *testing.T) {
	c := client(t)
	var sessions [2]*concurrency.Session
	for i := range sessions {
		s, err := concurrency.NewSession(c, concurrency.WithTTL(5))
		if err != nil {
			t.Fatal(err)
		}
		sessions[i] = s
	}
	first, second := concurrency.NewMutex(sessions[0], "/lock"), concurrency.NewMutex(sessions[1], "/lock")
	if err := first.Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := second.TryLock(t.Context()); !errors.Is(err, concurrency.ErrLocked) {
		t.Fatalf("locked twice: %v", err)
	}
	got := make(chan error, 1)
	go func() { got <- second.Lock(t.Context()) }()
	if err := sessions[0].Close(); err != nil { // revokes the lease, and with it the lock
		t.Fatal(err)
	}
	select {
	case err := <-got:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("the lock is not handed over")
	}
}

func TestWatchOptions(t *testing.T) {
	c := client(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	noPut := c.Watch(ctx, "k", clientv3.WithFilterPut())
	created := <-c.Watch(ctx, "other", clientv3.WithCreatedNotify())
	if !created.Created {
		t.Errorf("no notice of the creation: %+v", created)
	}
	plain := c.Watch(ctx, "k", clientv3.WithPrevKV())
	if _, err := c.Put(ctx, "k", "1"); err != nil {
		t.Fatal(err)
	}
	if e := (<-plain).Events[0]; e.PrevKv != nil || !e.IsCreate() {
		t.Errorf("creation: %v", e)
	}
	res, err := c.Delete(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	if e := (<-plain).Events[0]; string(e.PrevKv.Value) != "1" || e.Kv.ModRevision != res.Header.Revision {
		t.Errorf("deletion: %v", e)
	}
	if e := (<-noPut).Events[0]; e.Type != clientv3.EventTypeDelete {
		t.Errorf("a filtered event: %v", e)
	}
	if _, err := c.Compact(ctx, res.Header.Revision); err != nil {
		t.Fatal(err)
	}
	old := <-c.Watch(ctx, "k", clientv3.WithRev(1))
	if !errors.Is(old.Err(), rpctypes.ErrCompacted) || old.CompactRevision != res.Header.Revision {
		t.Errorf("a watch of the compacted: %+v", old)
	}
}

func TestProgressNotify(t *testing.T) {
	m := memory.New()
	defer m.Close()
	address, _ := serve(t, m, etcdserver.Config{ProgressInterval: 20 * time.Millisecond})
	c := dial(t, address)
	watch := c.Watch(t.Context(), "quiet", clientv3.WithProgressNotify())
	res, err := c.Put(t.Context(), "other", "x")
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.After(patience)
	for {
		select {
		case r := <-watch:
			if r.IsProgressNotify() && r.Header.Revision == res.Header.Revision {
				return
			}
		case <-deadline:
			t.Fatal("no notice")
		}
	}
}

func TestMaintenance(t *testing.T) {
	c := client(t)
	ctx := t.Context()
	status, err := c.Status(ctx, c.Endpoints()[0])
	if err != nil || !strings.HasPrefix(status.Version, "3.") || status.Leader != status.Header.MemberId {
		t.Errorf("%+v %v", status, err)
	}
	if _, err := c.Defragment(ctx, c.Endpoints()[0]); err != nil {
		t.Error(err)
	}
	if members, err := c.MemberList(ctx); err != nil || len(members.Members) != 1 {
		t.Errorf("%+v %v", members, err)
	}
	if alarms, err := c.AlarmList(ctx); err != nil || len(alarms.Alarms) != 0 {
		t.Errorf("%+v %v", alarms, err)
	}
	if auth, err := c.AuthStatus(ctx); err != nil || auth.Enabled {
		t.Errorf("%+v %v", auth, err)
	}
}

func TestPages(t *testing.T) {
	m := memory.New()
	defer m.Close()
	certificate, roots := selfSigned(t)
	plain, _ := serve(t, m, etcdserver.Config{})
	secure, _ := serve(t, m, etcdserver.Config{TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}})
	// A client that offers HTTP/2 as well, as curl does.
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	defer web.CloseIdleConnections()
	for _, base := range []string{"http://" + plain, "https://" + secure} {
		for path, want := range map[string]string{
			"/health": `{"health":"true","reason":""}`, "/version": `{"etcdserver":"3.`, "/readyz": "ok", "/livez": "ok",
		} {
			res, err := web.Get(base + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || res.StatusCode != http.StatusOK || !strings.HasPrefix(string(body), want) {
				t.Errorf("%s%s: %d %s %v", base, path, res.StatusCode, body, err)
			}
		}
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + secure}, TLS: &tls.Config{RootCAs: roots}, DialTimeout: patience,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Put(t.Context(), "a", "1"); err != nil {
		t.Errorf("over TLS: %v", err)
	}
}

func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "etcd"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}
