// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// hello is what a client of TLS says first.
func hello(name string) []byte {
	var said bytes.Buffer
	_ = tls.Client(&only{to: &said}, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake() // nobody answers
	return said.Bytes()
}

// only takes what is written, and has nothing to read.
type only struct {
	net.Conn
	to io.Writer
}

func (o *only) Write(p []byte) (int, error)      { return o.to.Write(p) }
func (o *only) Read([]byte) (int, error)         { return 0, io.EOF }
func (o *only) Close() error                     { return nil }
func (o *only) SetWriteDeadline(time.Time) error { return nil }

// frames is a connection of HTTP/2 with what write says after the preface.
func frames(write func(*http2.Framer)) []byte {
	var out bytes.Buffer
	out.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&out, nil)
	f.AllowIllegalWrites = true
	_ = f.WriteSettings()
	write(f)
	return out.Bytes()
}

// head is a block of header fields.
func head(pairs ...string) []byte {
	var out bytes.Buffer
	e := hpack.NewEncoder(&out)
	for i := 0; i < len(pairs); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return out.Bytes()
}

func demands(f *http2.Framer, stream uint32, block []byte) {
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndStream: true, EndHeaders: true})
}

// hostile are beginnings of connections.
func hostile() map[string][]byte {
	garbage := make([]byte, 4096)
	random := rand.New(rand.NewPCG(3, 4))
	for i := range garbage {
		garbage[i] = byte(random.Uint32())
	}
	said := hello("app.test")
	get := head(":method", "GET", ":scheme", "http", ":authority", "app.test", ":path", "/")
	return map[string][]byte{
		"garbage":                   garbage,
		"nothing":                   nil,
		"zeros":                     make([]byte, 70<<10),
		"half a request":            []byte("GET / HTTP/1.1\r\nHost: app.te"),
		"half a body":               []byte("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1000000\r\n\r\nhello"),
		"half a chunk":              []byte("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\nhello"),
		"a chunk of too much":       []byte("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nhello"),
		"a chunk's long extension":  []byte("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("x", 100<<10)),
		"a header without an end":   []byte("GET / HTTP/1.1\r\nHost: app.test\r\nX: " + strings.Repeat("x", 200<<10)),
		"headers without an end":    []byte("GET / HTTP/1.1\r\nHost: app.test\r\n" + strings.Repeat("X: x\r\n", 40<<10)),
		"a line without an end":     []byte("GET /" + strings.Repeat("x", 200<<10)),
		"a hello":                   said,
		"half a hello":              said[:len(said)/2],
		"a hello with a bit turned": append(append([]byte(nil), said[:60]...), append([]byte{said[60] ^ 0x10}, said[61:]...)...),
		"a hello that is too long":  append([]byte{22, 3, 1, 0xff, 0xff}, make([]byte, 70<<10)...),
		"an alert":                  {21, 3, 3, 0, 2, 2, 40},
		"many alerts":               bytes.Repeat([]byte{21, 3, 3, 0, 2, 1, 0}, 1000),
		"empty records":             bytes.Repeat([]byte{22, 3, 3, 0, 0}, 1000),
		"a preface only":            []byte(http2.ClientPreface),
		"half a preface":            []byte(http2.ClientPreface[:10]),
		"streams that are given up": frames(func(f *http2.Framer) {
			for i := range uint32(2000) {
				demands(f, 2*i+1, get)
				_ = f.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
			}
		}),
		"a head without an end": frames(func(f *http2.Framer) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: get})
			for range 2000 {
				_ = f.WriteContinuation(1, false, head("x", strings.Repeat("x", 100)))
			}
		}),
		"pings": frames(func(f *http2.Framer) {
			for range 20000 {
				_ = f.WritePing(false, [8]byte{})
			}
		}),
		"settings": frames(func(f *http2.Framer) {
			for range 20000 {
				_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			}
		}),
		"a frame that is too long": frames(func(f *http2.Framer) { _ = f.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<20)) }),
		"a frame of no kind":       frames(func(f *http2.Framer) { _ = f.WriteRawFrame(0xfe, 0xff, 1, make([]byte, 100)) }),
		"a head that is no HPACK":  frames(func(f *http2.Framer) { demands(f, 1, garbage[:200]) }),
	}
}

// Whatever begins a connection, others are answered as before, and nothing of it
// stays.
func TestHostileConnections(t *testing.T) {
	w := newWorld(t)
	w.pod("10.0.0.1:8080", echo("a"))
	w.service("app", "10.0.0.1")
	w.ingress("app", nil, nil)
	w.reaches("http://app.test/", 200)
	w.reaches("https://app.test/", 200)
	others := func() {
		t.Helper()
		c := w.client()
		defer c.CloseIdleConnections()
		for _, url := range []string{"http://app.test/", "https://app.test/"} {
			answer, err := c.Get(url)
			if err != nil {
				t.Fatal(err)
			}
			if answer.Body.Close(); answer.StatusCode != 200 {
				t.Fatalf("%s answers %s", url, answer.Status)
			}
		}
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	memory, routines := heap(), runtime.NumGoroutine()
	kinds := hostile()
	names := slices.Sorted(maps.Keys(kinds))
	for _, secure := range []bool{false, true} {
		var open []net.Conn
		var writing sync.WaitGroup
		for _, name := range names {
			for i := range 10 {
				conn, err := net.Dial("tcp", w.at(secure))
				if err != nil {
					t.Fatal(err)
				}
				open = append(open, conn)
				if secure && i%2 == 0 { // within TLS
					inner := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "app.test", NextProtos: []string{"h2", "http/1.1"}[i/2%2:]})
					conn = inner
				}
				writing.Go(func() {
					_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
					go io.Copy(io.Discard, conn)
					_, _ = conn.Write(kinds[name]) // it may be closed before
				})
			}
			others()
		}
		writing.Wait()
		others()
		for _, conn := range open {
			conn.Close()
		}
	}
	until(t, "all is as before", func() bool {
		w.c.proxy.Close()
		return runtime.NumGoroutine() <= routines+5 && heap() < memory+8<<20
	})
}

// A request by HTTP/2 does not become two for a backend of HTTP/1.1, and nobody
// says in another spelling who he is.
func TestOneRequestStaysOne(t *testing.T) {
	w := newWorld(t)
	seen := make(chan string, 10)
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	go func() {
		for {
			conn, err := backend.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				for {
					var all strings.Builder
					for {
						line, err := r.ReadString('\n')
						if err != nil {
							return
						}
						all.WriteString(line)
						if line == "\r\n" {
							break
						}
					}
					seen <- all.String()
					fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			}()
		}
	}()
	w.mu.Lock()
	w.pods["10.0.0.1:8080"] = backend.Addr().String()
	w.mu.Unlock()
	w.service("app", "10.0.0.1")
	w.ingress("app", nil, nil)
	w.reaches("http://app.test/", 200)
	for len(seen) > 0 {
		<-seen
	}
	ask := func(pairs ...string) (status string) {
		conn, err := net.Dial("tcp", w.at(false))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := conn.Write(frames(func(f *http2.Framer) { demands(f, 1, head(pairs...)) })); err != nil {
			t.Fatal(err)
		}
		f := http2.NewFramer(conn, conn)
		f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		for {
			frame, err := f.ReadFrame()
			switch frame := frame.(type) {
			case *http2.MetaHeadersFrame:
				return frame.PseudoValue("status")
			case *http2.RSTStreamFrame, *http2.GoAwayFrame:
				return "reset"
			}
			if err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("no answer")
				}
				return "closed"
			}
		}
	}
	for _, more := range [][]string{
		{":path", "/ HTTP/1.1\r\nHost: app.test\r\n\r\nGET /admin"},
		{":path", "/?x HTTP/1.1\r\nX: y"},
		{":path", "/?x HTTP/1.1 y"},
		{":path", "/a b"},
		{":path", "/", "x", "y\r\nTransfer-Encoding: chunked"},
		{":path", "/", "transfer-encoding", "chunked"},
		{":path", "/", "content-length", "100"},
		{":path", "/", "connection", "close"},
		{":path", "/", "x y", "z"},
		{":path", "/", "x:y", "z"},
	} {
		status := ask(append([]string{":method", "GET", ":scheme", "http", ":authority", "app.test"}, more...)...)
		if status != "200" {
			continue // refused
		}
		got := <-seen
		lines := strings.Split(got, "\r\n")
		if strings.Count(lines[0], " ") != 2 || !strings.HasSuffix(lines[0], " HTTP/1.1") || strings.Contains(strings.ToLower(got), "transfer-encoding") || strings.Contains(strings.ToLower(got), "content-length") {
			t.Errorf("%q became %q", more, got)
		}
	}
	for len(seen) > 0 {
		t.Errorf("the backend was asked %q, too", <-seen)
	}
	if status := ask(":method", "GET", ":scheme", "http", ":authority", "app.test", ":path", "/", "x_forwarded_for", "10.9.9.9", "x-real_ip", "10.9.9.9", "x_other", "stays"); status != "200" {
		t.Fatalf("answered %s", status)
	}
	if got := <-seen; strings.Contains(got, "10.9.9.9") || !strings.Contains(strings.ToLower(got), "x_other: stays") {
		t.Errorf("the backend was told %q", got)
	}
}
