// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// raw is a server that answers each request of a connection with the next text,
// and then closes.
func raw(t *testing.T, conns *atomic.Int32, answers ...string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				for _, a := range answers {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					if _, err := io.WriteString(conn, a); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func get(t *testing.T, transport *Transport, address string) (*http.Response, string, error) {
	t.Helper()
	pool := &Pool{}
	pool.Set([]string{address}, "")
	req := httptest.NewRequestWithContext(With(t.Context(), &Call{Pool: pool}), http.MethodGet, "/", http.NoBody)
	answer, err := transport.RoundTrip(req)
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer, string(body), err
}

func dialer() Dial { return (&net.Dialer{}).DialContext }

// TestConnectionsAreUsedAgain, by whatever an answer's length is told; and a
// connection that its server closed is no failure.
func TestConnectionsAreUsedAgain(t *testing.T) {
	var conns atomic.Int32
	const sized, chunked, empty = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"
	address := raw(t, &conns, sized, chunked, empty, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok")
	transport := New(dialer())
	defer transport.Close()
	for i := range 8 {
		_, body, err := get(t, transport, address)
		if err != nil || body != "ok" && i%4 != 2 {
			t.Fatalf("request %d: %q, %v", i, body, err)
		}
	}
	if n := conns.Load(); n != 2 {
		t.Errorf("8 requests took %d connections, want 2", n)
	}
	conns.Store(0)
	address = raw(t, &conns, sized) // and closes, without a word of it
	for range 5 {
		if _, body, err := get(t, transport, address); err != nil || body != "ok" {
			t.Fatalf("after the server closed: %q, %v", body, err)
		}
	}
	if n := conns.Load(); n != 5 {
		t.Errorf("5 requests took %d connections, want 5", n)
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	for name, tt := range map[string]struct{ answer, want string }{
		"switch":  {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "switched protocols"},
		"garbage": {"SSH-2.0-x\r\n", "malformed HTTP"},
		"early":   {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 9), "too many informational"},
		"nothing": {"", "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			var conns atomic.Int32
			transport := New(dialer())
			defer transport.Close()
			if _, _, err := get(t, transport, raw(t, &conns, tt.answer)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	t.Run("cut", func(t *testing.T) {
		var conns atomic.Int32
		transport := New(dialer())
		defer transport.Close()
		if _, body, err := get(t, transport, raw(t, &conns, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")); err == nil {
			t.Errorf("half an answer was taken for one: %q", body)
		}
	})
}

func TestEarlyHintsGoOn(t *testing.T) {
	var conns atomic.Int32
	address := raw(t, &conns, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	transport := New(dialer())
	defer transport.Close()
	pool := &Pool{}
	pool.Set([]string{address}, "")
	var seen string
	ctx := httptrace.WithClientTrace(With(t.Context(), &Call{Pool: pool}), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		seen = fmt.Sprint(code, h.Get("Link"))
		return nil
	}})
	answer, err := transport.RoundTrip(httptest.NewRequestWithContext(ctx, http.MethodGet, "/", http.NoBody))
	if err != nil || answer.StatusCode != 200 || seen != "103</x>" {
		t.Fatalf("%v, %v, hints %q", answer, err, seen)
	}
	answer.Body.Close()
}

// TestSilence ends requests whose backend says nothing: by the time-out and by the
// client that leaves.
func TestSilence(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	address := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/half" {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
		}
		<-block
	})
	transport := New(dialer())
	defer transport.Close()
	pool := &Pool{}
	pool.Set([]string{address}, "")
	req := httptest.NewRequestWithContext(With(t.Context(), &Call{Pool: pool, ReadTimeout: 50 * time.Millisecond}), http.MethodGet, "/", http.NoBody)
	if _, err := transport.RoundTrip(req); err != ErrTimeout {
		t.Errorf("time-out: %v", err)
	}
	ctx, leave := context.WithCancel(t.Context())
	req = httptest.NewRequestWithContext(With(ctx, &Call{Pool: pool}), http.MethodGet, "/half", http.NoBody)
	answer, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	leave()
	if _, err := io.ReadAll(answer.Body); err == nil {
		t.Error("the body ended well though the client had left")
	}
	answer.Body.Close()
}

// BenchmarkRoundTrip measures a request of 1 KB without a body of its own, on
// each of the ways.
func BenchmarkRoundTrip(b *testing.B) {
	page := []byte(strings.Repeat("x", 1024))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) }))
	defer s.Close()
	transport := New(dialer())
	defer transport.Close()
	pool := &Pool{}
	pool.Set([]string{s.Listener.Addr().String()}, "")
	for name, header := range map[string]http.Header{"direct": {}, "net-http": {"Upgrade": {"none"}}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				req := httptest.NewRequestWithContext(With(b.Context(), &Call{Pool: pool}), http.MethodGet, "/", http.NoBody)
				req.Header = header
				answer, err := transport.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
			}
		})
	}
}
