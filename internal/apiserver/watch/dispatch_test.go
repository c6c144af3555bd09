// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/cache/cachetest"
	"kaji/internal/apiserver/h2"
)

// dispatching is a server of watches that wait in a dispatcher.
type dispatching struct {
	*serving
	server *httptest.Server
	d      *Dispatcher
}

func startDispatching(t *testing.T) *dispatching {
	d := &Dispatcher{}
	two := h2.New(h2.Config{MaxStreams: 250})
	s := &dispatching{d: d}
	s.serving = serveBy(t, cache.Config{}, d, func(h http.Handler) *httptest.Server {
		s.server = httptest.NewUnstartedServer(h)
		s.server.Listener = h2.Listener(s.server.Listener)
		s.server.TLS = &tls.Config{NextProtos: []string{"h2"}}
		s.server.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){"h2": two.ServeConn}
		s.server.Config.RegisterOnShutdown(two.Shutdown)
		s.server.StartTLS()
		return s.server
	})
	t.Cleanup(func() {
		s.server.Close()
		d.mu.Lock()
		defer d.mu.Unlock()
		if len(d.kinds) > 0 {
			t.Errorf("%d kinds are left in the dispatcher", len(d.kinds))
		}
	})
	return s
}

// client is a connection whose reading can be stopped.
type client struct {
	http.Client
	reading sync.Mutex
}

func (s *dispatching) client(t *testing.T, window int) *client {
	c := &client{}
	roots := x509.NewCertPool()
	roots.AddCert(s.server.Certificate())
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
		HTTP2:             &http.HTTP2Config{MaxReceiveBufferPerStream: window, MaxReceiveBufferPerConnection: 64 << 20},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			return &stoppable{conn, c}, err
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	c.Transport = transport
	return c
}

type stoppable struct {
	net.Conn
	c *client
}

func (s *stoppable) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	s.c.reading.Lock()
	defer s.c.reading.Unlock()
	return n, err
}

func (s *dispatching) watch(t *testing.T, c *client, query string) *bufio.Reader {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/?watch=true&"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if answer.ProtoMajor != 2 {
		t.Fatalf("the answer came by %s", answer.Proto)
	}
	t.Cleanup(func() { answer.Body.Close() })
	return bufio.NewReader(answer.Body)
}

// step reads one event and returns the object's label "step".
func step(body *bufio.Reader) (int, error) {
	line, err := body.ReadBytes('\n')
	if err != nil {
		return 0, err
	}
	var event struct {
		Type   string
		Object struct {
			Metadata struct{ Labels map[string]string }
		}
	}
	if err := json.Unmarshal(line, &event); err != nil {
		return 0, err
	}
	return strconv.Atoi(event.Object.Metadata.Labels["step"])
}

// put changes pod a, with ballast, as often as asked.
func (s *dispatching) steps(from, n, ballast int) {
	for i := from; i < from+n; i++ {
		pod := cachetest.Pod("ns", "a", "n", map[string]string{"step": strconv.Itoa(i)})
		pod.Annotations = map[string]string{"ballast": strings.Repeat("x", ballast)}
		s.Put(s.kind, pod)
	}
}

func wantSteps(t *testing.T, who string, body *bufio.Reader, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		if got, err := step(body); got != i || err != nil {
			t.Errorf("%s: got step %d, %v, want %d", who, got, err, i)
			return
		}
	}
}

// waits waits until so many watches stand in the dispatcher.
func (s *dispatching) waits(t *testing.T, want int) {
	t.Helper()
	count := func() (n int) {
		s.d.mu.Lock()
		defer s.d.mu.Unlock()
		for _, kind := range s.d.kinds {
			for _, g := range kind.groups {
				g.mu.Lock()
				n += len(g.waiting) - g.left
				g.mu.Unlock()
			}
		}
		return n
	}
	for deadline := time.Now().Add(time.Minute); count() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d watches wait in the dispatcher, want %d", count(), want)
		}
	}
}

// Many watches of several connections see every event once and in order, those
// of others' objects none, while some come and go.
func TestDispatcher(t *testing.T) {
	s := startDispatching(t)
	const each, steps = 20, 300
	revision := s.Put(s.kind, cachetest.Pod("ns", "b", "n", nil))
	var all sync.WaitGroup
	for c := range 3 {
		client := s.client(t, 1<<20)
		for w := range each {
			body := s.watch(t, client, fmt.Sprintf("resourceVersion=%d&fieldSelector=metadata.name%%3Da", revision))
			all.Go(func() { wantSteps(t, fmt.Sprintf("watch %d of %d", w, c), body, 0, steps) })
		}
		other := s.watch(t, client, fmt.Sprintf("resourceVersion=%d&fieldSelector=metadata.name%%3Dc", revision))
		all.Go(func() {
			if line, err := other.ReadString('\n'); !strings.Contains(line, `"name":"c"`) {
				t.Errorf("a watch of c got %q, %v", line, err)
			}
		})
	}
	s.waits(t, 3*(each+1))
	passing := s.client(t, 1<<20)
	for i := range 10 {
		s.steps(i*steps/10, steps/10, 2000)
		ctx, cancel := context.WithCancel(t.Context())
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/?watch=true", nil)
		if answer, err := passing.Do(r); err != nil {
			t.Error(err)
		} else {
			_, _ = bufio.NewReader(answer.Body).ReadBytes('\n')
			answer.Body.Close()
		}
		cancel()
	}
	s.Put(s.kind, cachetest.Pod("ns", "c", "n", nil))
	all.Wait()
}

// A watch that nobody reads holds up no other of its connection, and has lost
// nothing when somebody does.
func TestDispatcherUnreadWatch(t *testing.T) {
	s := startDispatching(t)
	revision := s.Put(s.kind, cachetest.Pod("ns", "b", "n", nil))
	client := s.client(t, 64<<10)
	query := fmt.Sprintf("resourceVersion=%d", revision)
	unread, read := s.watch(t, client, query), s.watch(t, client, query)
	s.waits(t, 2)
	const n = 100 // of 5 KB: far more than a stream's window
	for i := range n {
		s.steps(i, 1, 5000)
		wantSteps(t, "the other", read, i, 1)
	}
	wantSteps(t, "the unread", unread, 0, n)
	s.waits(t, 2)
}

// A client that reads nothing holds up no other, and has lost nothing when it does.
func TestDispatcherDeafClient(t *testing.T) {
	s := startDispatching(t)
	revision := s.Put(s.kind, cachetest.Pod("ns", "b", "n", nil))
	query := fmt.Sprintf("resourceVersion=%d", revision)
	deaf, other := s.client(t, 8<<20), s.client(t, 8<<20)
	var watches []*bufio.Reader
	for range 10 {
		watches = append(watches, s.watch(t, deaf, query))
	}
	read := s.watch(t, other, query)
	s.waits(t, 11)
	deaf.reading.Lock()
	const n = 200 // of 10 watches and 10 KB: more than the sockets hold
	for i := range n {
		s.steps(i, 1, 10000)
		wantSteps(t, "the other", read, i, 1)
	}
	alone := func() bool {
		s.d.mu.Lock()
		defer s.d.mu.Unlock()
		for _, kind := range s.d.kinds {
			for _, g := range kind.groups {
				g.mu.Lock()
				defer g.mu.Unlock()
				if g.alone {
					return true
				}
			}
		}
		return false
	}
	if !alone() {
		t.Error("no group goes on alone")
	}
	deaf.reading.Unlock()
	for i, body := range watches {
		wantSteps(t, fmt.Sprintf("watch %d", i), body, 0, n)
	}
	// It follows with all others again.
	for deadline := time.Now().Add(time.Minute); alone(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the group stays alone")
		}
	}
	s.steps(n, 1, 0)
	for i, body := range watches {
		wantSteps(t, fmt.Sprintf("watch %d", i), body, n, 1)
	}
}

// An object that is too large to be sent without waiting comes all the same.
func TestDispatcherLargeObject(t *testing.T) {
	s := startDispatching(t)
	revision := s.Put(s.kind, cachetest.Pod("ns", "b", "n", nil))
	body := s.watch(t, s.client(t, 1<<20), fmt.Sprintf("resourceVersion=%d", revision))
	s.waits(t, 1)
	s.steps(0, 1, 0)
	s.steps(1, 2, 400_000)
	s.steps(3, 1, 0)
	wantSteps(t, "the watch", body, 0, 4)
	s.waits(t, 1)
}

// The watches of a kind that is served no more end.
func TestDispatcherKindGone(t *testing.T) {
	s := startDispatching(t)
	revision := s.Put(s.kind, cachetest.Pod("ns", "b", "n", nil))
	body := s.watch(t, s.client(t, 1<<20), fmt.Sprintf("resourceVersion=%d", revision))
	s.waits(t, 1)
	s.Cache.Remove(s.kind)
	if rest, err := io.ReadAll(body); len(rest) > 0 || err != nil {
		t.Errorf("the watch ended with %q, %v", rest, err)
	}
}
