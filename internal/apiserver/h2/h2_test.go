// SPDX-License-Identifier: Apache-2.0

package h2_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"kaji/internal/apiserver/h2"
)

// patience is how long a test waits for what must happen.
const patience = 60 * time.Second

// start serves h and returns where, and a client of HTTP/2.
func start(t testing.TB, cfg h2.Config, h http.HandlerFunc) (*httptest.Server, *http.Client) {
	t.Helper()
	two := h2.New(cfg)
	s := httptest.NewUnstartedServer(h)
	s.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){"h2": two.ServeConn}
	s.Config.RegisterOnShutdown(two.Shutdown)
	s.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	s.StartTLS()
	t.Cleanup(s.Close)
	transport := s.Client().Transport.(*http.Transport)
	transport.ForceAttemptHTTP2 = true
	client := &http.Client{Transport: transport, Timeout: patience}
	t.Cleanup(transport.CloseIdleConnections)
	return s, client
}

func ask(t *testing.T, c *http.Client, method, url string, body io.Reader) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(text)
}

// What handlers see of a request and what clients see of an answer is what
// net/http's own server makes of them.
func TestLikeNetHTTP(t *testing.T) {
	handler := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/unchanged":
			w.WriteHeader(http.StatusNotModified)
		case "/typed":
			w.Header().Set("Content-Type", "application/json")
			w.Header()["X-Many"] = []string{"a", "b"}
			fmt.Fprint(w, `{"a":1}`)
		case "/long":
			for i := range 20_000 {
				fmt.Fprintf(w, "line %d\n", i)
			}
		case "/trailers":
			w.Header().Set("Trailer", "X-Sum")
			fmt.Fprint(w, "body")
			w.Header().Set("X-Sum", "42")
			w.Header().Set(http.TrailerPrefix+"X-Late", "yes")
		case "/early":
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprint(w, "teapot")
		case "/promised":
			w.Header().Set("Content-Length", "4")
			fmt.Fprint(w, "four")
		default:
			body, err := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %s %d %v %d bytes, %v, %v; %s; %v %v", r.Method, r.RequestURI, r.Proto, r.ContentLength, r.TLS != nil, len(body), err,
				r.Header.Get("X-Asked"), r.Header.Get("Cookie"), r.Context().Value(http.ServerContextKey) != nil, r.Trailer)
		}
	}
	sOurs, ours := start(t, h2.Config{}, handler)
	reference := httptest.NewUnstartedServer(http.HandlerFunc(handler))
	reference.EnableHTTP2 = true
	reference.StartTLS()
	defer reference.Close()
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/a?b=c", ""}, {"HEAD", "/a", ""}, {"GET", "/none", ""}, {"GET", "/unchanged", ""}, {"GET", "/typed", ""}, {"HEAD", "/typed", ""},
		{"GET", "/long", ""}, {"HEAD", "/long", ""}, {"GET", "/trailers", ""}, {"GET", "/early", ""}, {"GET", "/promised", ""}, {"HEAD", "/promised", ""},
		{"POST", "/echo", "small"}, {"PUT", "/echo", strings.Repeat("large ", 300_000)}, {"POST", "/echo", ""}, {"OPTIONS", "/echo", ""}, {"DELETE", "/echo", "x"},
	} {
		var seen [2]string
		for i, of := range []struct {
			url    string
			client *http.Client
		}{{sOurs.URL, ours}, {reference.URL, reference.Client()}} {
			r, err := http.NewRequestWithContext(t.Context(), c.method, of.url+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Asked", "yes")
			r.Header["Cookie"] = []string{"a=1; b=2"}
			answer, err := of.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			answer.Header.Del("Date")
			seen[i] = fmt.Sprintf("%s %d %v %v %d %v %s", answer.Proto, answer.StatusCode, answer.Header, answer.Trailer, answer.ContentLength, err, text)
		}
		if seen[0] != seen[1] {
			t.Errorf("%s %s: got %.300s, want %.300s", c.method, c.path, seen[0], seen[1])
		}
	}
}

// Many small pieces on many streams of one connection arrive in order, and
// whole, also where the client reads slowly.
func TestStreams(t *testing.T) {
	const streams, pieces = 100, 200
	s, c := start(t, h2.Config{}, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		for i := range pieces {
			fmt.Fprintf(w, "%d %s\n", i, strings.Repeat("x", 10*i))
			if err := control.Flush(); err != nil {
				t.Errorf("flush: %v", err)
				return
			}
		}
	})
	var all sync.WaitGroup
	for n := range streams {
		all.Go(func() {
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
			answer, err := c.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer answer.Body.Close()
			var got bytes.Buffer
			if _, err := io.CopyBuffer(&got, struct{ io.Reader }{answer.Body}, make([]byte, 100+n)); err != nil {
				t.Error(err)
			}
			for i := range pieces {
				if line, _ := got.ReadString('\n'); line != fmt.Sprintf("%d %s\n", i, strings.Repeat("x", 10*i)) {
					t.Errorf("stream %d, piece %d: got %.20s", n, i, line)
					return
				}
			}
		})
	}
	all.Wait()
}

// A body larger than all windows passes both ways at once.
func TestEcho(t *testing.T) {
	s, c := start(t, h2.Config{}, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(w, r.Body); err != nil {
			t.Error(err)
		}
	})
	want := strings.Repeat("0123456789abcdef", 1<<17)
	if _, got := ask(t, c, http.MethodPost, s.URL, struct{ io.Reader }{strings.NewReader(want)}); got != want {
		t.Errorf("got %d bytes, want %d", len(got), len(want))
	}
}

// A handler learns that its client has gone, and a client that the handler gave
// up.
func TestCancel(t *testing.T) {
	gone := make(chan error, 1)
	s, c := start(t, h2.Config{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/abort" {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		for {
			if _, err := w.Write(make([]byte, 10_000)); err != nil {
				gone <- err
				return
			}
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	answer.Body.Close()
	select {
	case <-gone:
	case <-time.After(patience):
		t.Fatal("the handler was not told")
	}
	r, _ = http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/abort", nil)
	answer, err = c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.ReadAll(answer.Body); err == nil {
		t.Error("an aborted answer looks whole")
	}
}

// A handler that does not read the body ends the stream all the same.
func TestUnreadBody(t *testing.T) {
	s, c := start(t, h2.Config{}, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	})
	for range 5 {
		answer, _ := ask(t, c, http.MethodPost, s.URL, struct{ io.Reader }{bytes.NewReader(make([]byte, 1<<20))})
		if answer.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("got %d", answer.StatusCode)
		}
	}
}

// A request that waits with its body unread does not hold up the bodies of
// others on the connection.
func TestWaitingBodies(t *testing.T) {
	free := make(chan struct{})
	s, c := start(t, h2.Config{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/waits" {
			<-free
		}
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, r.RemoteAddr)
	})
	body := func() io.Reader { return bytes.NewReader(make([]byte, 1<<20)) }
	_, first := ask(t, c, http.MethodGet, s.URL, nil)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() { ask(t, c, http.MethodPost, s.URL+"/waits", body()) })
	}
	for range 3 {
		if _, where := ask(t, c, http.MethodPost, s.URL, body()); where != first {
			t.Errorf("another connection: %s, %s", first, where)
		}
	}
	close(free)
	all.Wait()
}

// A client that was answered before it had sent all is asked to stop, not at
// once: what it sends meanwhile is dropped.
func TestAnsweredEarly(t *testing.T) {
	s, _ := start(t, h2.Config{}, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	})
	for name, end := range map[string]bool{"stopped": false, "ended": true} {
		t.Run(name, func(t *testing.T) {
			client := dial(t, s)
			client.open(1, false)
			answered := false
			for !answered {
				f, err := client.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				head, ok := f.(*http2.HeadersFrame)
				answered = ok && head.StreamEnded()
			}
			if !end {
				if got := client.outcome(); got != "stream 1: NO_ERROR" {
					t.Errorf("got %s", got)
				}
				return
			}
			_ = client.WriteData(1, false, make([]byte, 16<<10))
			_ = client.WriteData(1, true, nil)
			_ = client.WriteData(1, true, nil) // it is closed now, or was on a slow machine
			if got := client.outcome(); got != "stream 1: STREAM_CLOSED" && got != "stream 1: NO_ERROR" {
				t.Errorf("got %s", got)
			}
		})
	}
}

// "Connection: close" and Shutdown let requests under way finish and take no
// more.
func TestLeave(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	s, c := start(t, h2.Config{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/close":
			w.Header().Set("Connection", "close")
		case "/slow":
			close(begun)
			<-finish
		}
		fmt.Fprint(w, r.RemoteAddr)
	})
	_, first := ask(t, c, http.MethodGet, s.URL, nil)
	_, same := ask(t, c, http.MethodGet, s.URL+"/close", nil)
	_, other := ask(t, c, http.MethodGet, s.URL, nil)
	if first != same || other == first {
		t.Errorf("connections: %s, %s, %s", first, same, other)
	}
	var all sync.WaitGroup
	all.Go(func() {
		if answer, _ := ask(t, c, http.MethodGet, s.URL+"/slow", nil); answer.Header.Get("Connection") != "" {
			t.Error("a header of HTTP/1 got through")
		}
	})
	<-begun
	done := make(chan error, 1)
	go func() { done <- s.Config.Shutdown(context.WithoutCancel(t.Context())) }()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(finish)
	all.Wait()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("Shutdown does not end")
	}
}

// raw is a client that may misbehave.
type raw struct {
	t  *testing.T
	tc *tls.Conn
	*http2.Framer
	head    bytes.Buffer
	encoder *hpack.Encoder
}

func dial(t *testing.T, s *httptest.Server) *raw {
	t.Helper()
	tc, err := tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{NextProtos: []string{"h2"}, InsecureSkipVerify: true}) //nolint:gosec // a test's own server
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tc.Close() })
	_ = tc.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(tc, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	c := &raw{t: t, tc: tc, Framer: http2.NewFramer(tc, tc)}
	c.encoder = hpack.NewEncoder(&c.head)
	_ = c.WriteSettings()
	return c
}

// open sends the head of a request; name and value are added to it.
func (c *raw) open(id uint32, end bool, more ...string) {
	c.t.Helper()
	c.head.Reset()
	for i, fields := 0, append([]string{":method", "POST", ":scheme", "https", ":authority", "a.example", ":path", "/"}, more...); i < len(fields); i += 2 {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.head.Bytes(), EndHeaders: true, EndStream: end})
}

// outcome reads until the server refuses a stream or the connection, and says
// how; an answer on stream 99 says that it did neither.
func (c *raw) outcome() string {
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			return fmt.Sprintf("stream %d: %s", f.StreamID, f.ErrCode)
		case *http2.GoAwayFrame:
			return fmt.Sprintf("connection: %s", f.ErrCode)
		case *http2.HeadersFrame:
			if f.StreamID == 99 {
				return "fine"
			}
		}
	}
}

// What clients must not do ends their stream or connection, with the code that
// the protocol wants, and nothing else.
func TestViolations(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*raw)
		want string
	}{
		"nothing wrong":      {func(*raw) {}, "fine"},
		"unknown frame":      {func(c *raw) { _ = c.WriteRawFrame(0x7a, 0, 0, []byte("x")) }, "fine"},
		"priority":           {func(c *raw) { _ = c.WritePriority(5, http2.PriorityParam{StreamDep: 3}) }, "fine"},
		"settings and pings": {func(c *raw) { _ = c.WriteSettings(http2.Setting{ID: 1, Val: 0}); _ = c.WritePing(false, [8]byte{}) }, "fine"},
		"even stream":        {func(c *raw) { c.open(2, true) }, "connection: PROTOCOL_ERROR"},
		"stream again":       {func(c *raw) { c.open(5, true); c.open(3, true) }, "connection: PROTOCOL_ERROR"},
		"data on idle":       {func(c *raw) { _ = c.WriteData(7, true, nil) }, "connection: PROTOCOL_ERROR"},
		"reset of idle":      {func(c *raw) { _ = c.WriteRSTStream(7, http2.ErrCodeCancel) }, "connection: PROTOCOL_ERROR"},
		"window of idle":     {func(c *raw) { _ = c.WriteWindowUpdate(7, 1) }, "connection: PROTOCOL_ERROR"},
		"window too large":   {func(c *raw) { _ = c.WriteWindowUpdate(0, 1<<31-1) }, "connection: FLOW_CONTROL_ERROR"},
		"stream window too large": {func(c *raw) { c.open(1, false, "x-wait", "1"); _ = c.WriteWindowUpdate(1, 1<<31-1) },
			"stream 1: FLOW_CONTROL_ERROR"},
		"push":                   {func(c *raw) { _ = c.WriteRawFrame(http2.FramePushPromise, 4, 1, make([]byte, 8)) }, "connection: PROTOCOL_ERROR"},
		"continuation alone":     {func(c *raw) { _ = c.WriteRawFrame(http2.FrameContinuation, 4, 1, nil) }, "connection: PROTOCOL_ERROR"},
		"frame too large":        {func(c *raw) { _ = c.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<17)) }, "connection: FRAME_SIZE_ERROR"},
		"bad setting":            {func(c *raw) { _ = c.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}) }, "connection: PROTOCOL_ERROR"},
		"no path":                {func(c *raw) { c.bare(":method", "GET", ":scheme", "https") }, "stream 1: PROTOCOL_ERROR"},
		"bad path":               {func(c *raw) { c.bare(":method", "GET", ":scheme", "https", ":path", "x") }, "stream 1: PROTOCOL_ERROR"},
		"pseudo twice":           {func(c *raw) { c.open(1, true, ":path", "/") }, "stream 1: PROTOCOL_ERROR"},
		"upper case":             {func(c *raw) { c.open(1, true, "X-A", "/") }, "stream 1: PROTOCOL_ERROR"},
		"another host":           {func(c *raw) { c.open(1, true, "host", "b.example") }, "stream 1: PROTOCOL_ERROR"},
		"extended connect":       {func(c *raw) { c.bare(":method", "CONNECT", ":scheme", "https", ":path", "/", ":protocol", "x") }, "stream 1: PROTOCOL_ERROR"},
		"length without body":    {func(c *raw) { c.open(1, true, "content-length", "3") }, "stream 1: PROTOCOL_ERROR"},
		"length missed":          {func(c *raw) { c.open(1, false, "content-length", "3"); _ = c.WriteData(1, true, []byte("ab")) }, "stream 1: PROTOCOL_ERROR"},
		"length passed":          {func(c *raw) { c.open(1, false, "content-length", "3"); _ = c.WriteData(1, true, []byte("abcd")) }, "stream 1: PROTOCOL_ERROR"},
		"data after the end":     {func(c *raw) { c.open(1, true, "x-wait", "1"); _ = c.WriteData(1, true, []byte("abcd")) }, "stream 1: STREAM_CLOSED"},
		"trailers that go on":    {func(c *raw) { c.open(1, false, "x-wait", "1"); c.bare("x", "y") }, "stream 1: PROTOCOL_ERROR"},
		"priority before itself": {func(c *raw) { _ = c.WritePriority(5, http2.PriorityParam{StreamDep: 5}) }, "stream 5: PROTOCOL_ERROR"},
		"too many streams": {func(c *raw) {
			for id := uint32(1); id < 13; id += 2 {
				c.open(id, true, "x-wait", "1")
			}
		}, "stream 11: REFUSED_STREAM"},
		"rapid resets": {func(c *raw) {
			for id := uint32(1); id < 99; id += 2 {
				c.open(id, true, "x-wait", "1", "x-deaf", "1")
				_ = c.WriteRSTStream(id, http2.ErrCodeCancel)
			}
		}, "connection: ENHANCE_YOUR_CALM"},
		"connection window": {func(c *raw) {
			for id := uint32(1); id < 9; id += 2 {
				c.open(id, false, "x-wait", "1")
				for range 8 {
					_ = c.WriteData(id, false, make([]byte, 16<<10))
				}
			}
		}, "connection: FLOW_CONTROL_ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			end := make(chan struct{})
			s, _ := start(t, h2.Config{MaxStreams: 5, Window: 256 << 10}, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("X-Deaf") != "" {
					<-end
				}
				if r.Header.Get("X-Wait") != "" {
					select {
					case <-r.Context().Done():
					case <-end:
					}
				}
				_, _ = io.ReadAll(r.Body)
			})
			defer close(end)
			client := dial(t, s)
			c.do(client)
			client.open(99, true)
			if got := client.outcome(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// bare opens stream 1 with these fields alone.
func (c *raw) bare(fields ...string) {
	c.head.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.head.Bytes(), EndHeaders: true})
}

// Requests that HTTP/2 does not allow, or whose heads are too long, are
// answered.
func TestRefusals(t *testing.T) {
	s, _ := start(t, h2.Config{MaxHeaderBytes: 4 << 10}, func(http.ResponseWriter, *http.Request) {})
	for want, fields := range map[string][]string{
		"400": {"connection", "close"},
		"431": slices.Repeat([]string{"x-long", strings.Repeat("x", 1<<10)}, 8),
	} {
		c := dial(t, s)
		c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		c.open(1, true, fields...)
		for {
			f, err := c.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if h, ok := f.(*http2.MetaHeadersFrame); ok {
				if got := h.PseudoValue("status"); got != want {
					t.Errorf("%s: got %s, want %s", fields[0], got, want)
				}
				break
			}
		}
	}
}

// A handler cannot write more than it promised.
func TestTooMuch(t *testing.T) {
	s, c := start(t, h2.Config{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "4")
		_, err := fmt.Fprint(w, "four")
		if _, more := fmt.Fprint(w, "more"); err != nil || !errors.Is(more, http.ErrContentLength) {
			t.Errorf("got %v, %v", err, more)
		}
	})
	if _, got := ask(t, c, http.MethodGet, s.URL, nil); got != "four" {
		t.Errorf("got %s", got)
	}
}

// A client that waits for a word before it sends its body gets it.
func TestContinue(t *testing.T) {
	s, _ := start(t, h2.Config{}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s", body)
	})
	c := dial(t, s)
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.open(1, false, "expect", "100-continue")
	var seen []string
	for {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if seen = append(seen, f.PseudoValue("status")); len(seen) == 1 {
				_ = c.WriteData(1, true, []byte("body"))
			}
		case *http2.DataFrame:
			if got := fmt.Sprintf("%v %s", seen, f.Data()); got != "[100 200] body" {
				t.Errorf("got %s", got)
			}
			return
		}
	}
}

// A client that takes nothing is cut, and holds no handler for ever; one that
// asks for answers and does not read them, too.
func TestDeafClients(t *testing.T) {
	ended := make(chan error, 1)
	s, _ := start(t, h2.Config{WriteTimeout: 100 * time.Millisecond}, func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 100_000)); err != nil {
				ended <- err
				return
			}
		}
	})
	c := dial(t, s)
	_ = c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	_ = c.WriteWindowUpdate(0, 1<<30)
	c.open(1, true)
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the handler waits for a client that reads nothing")
	}
	c = dial(t, s)
	pings := bytes.Repeat([]byte("\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"), 900)
	for {
		if _, err := c.tc.Write(pings); err != nil {
			return // it was cut
		}
	}
}

// Connections without requests end; the client is told before.
func TestIdle(t *testing.T) {
	s, _ := start(t, h2.Config{IdleTimeout: 50 * time.Millisecond}, func(http.ResponseWriter, *http.Request) {})
	c := dial(t, s)
	c.open(1, true)
	if got := c.outcome(); got != "connection: NO_ERROR" {
		t.Errorf("got %s", got)
	}
	if got := c.outcome(); got != "closed" {
		t.Errorf("got %s", got)
	}
}

// A handler that panics ends its own stream.
func TestPanic(t *testing.T) {
	s, c := start(t, h2.Config{}, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/panic" {
			panic("at the disco")
		}
	})
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/panic", nil)
	if answer, err := c.Do(r); err == nil {
		answer.Body.Close()
		t.Errorf("got %s", answer.Status)
	}
	ask(t, c, http.MethodGet, s.URL, nil)
}

// Whatever a client sends, its connection ends when it does.
func FuzzConn(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	f.Add([]byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\xff\xff\xff"))
	f.Add([]byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x03\x01\x05\x00\x00\x00\x01\x82\x84\x87"))
	f.Add([]byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x03\x01\x04\x00\x00\x00\x01\x83\x84\x87\x00\x00\x02\x00\x01\x00\x00\x00\x01ab"))
	s, _ := start(f, h2.Config{MaxStreams: 3}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	})
	f.Fuzz(func(t *testing.T, sent []byte) {
		tc, err := tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{NextProtos: []string{"h2"}, InsecureSkipVerify: true}) //nolint:gosec // a test's own server
		if err != nil {
			t.Fatal(err)
		}
		defer tc.Close()
		_ = tc.SetDeadline(time.Now().Add(patience))
		if _, err := tc.Write(sent); err != nil {
			return
		}
		_ = tc.NetConn().(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, tc); errors.Is(err, context.DeadlineExceeded) {
			t.Fatal("the connection does not end")
		}
	})
}
