// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"syscall"
	"time"
)

const (
	// maxHead bounds the head of an answer, as net/http does.
	maxHead = 10 << 20
	// maxInformational bounds the answers before the answer.
	maxInformational = 5
)

// direct sends requests without a body by HTTP/1.1 in the clear, which most are.
// Writing and reading stay in the caller's goroutine: net/http's transport has
// two more for each connection, and waking them costs more than the request.
type direct struct {
	dial Dial

	mu    sync.Mutex // guards what follows
	idle  map[string][]*wire
	sweep *time.Timer
}

// wire is a connection to a backend.
type wire struct {
	net.Conn
	address string
	head    *io.LimitedReader
	r       *bufio.Reader
	w       *bufio.Writer
	since   time.Time // when it became idle
}

func newDirect(dial Dial) *direct { return &direct{dial: dial, idle: map[string][]*wire{}} }

// fits says whether a request may go this way.
func fits(req *http.Request, call *Call, body *kept) bool {
	return body == nil && !call.TLS && !call.HTTP2 && len(req.Header["Upgrade"]) == 0 && len(req.Trailer) == 0 &&
		(req.Method == http.MethodGet || req.Method == http.MethodHead || req.Method == http.MethodOptions)
}

// roundTrip sends a request to req.URL.Host. A connection that its server closed
// meanwhile is replaced: the requests that fit may be sent twice.
func (d *direct) roundTrip(req *http.Request) (*http.Response, error) {
	ctx, address := req.Context(), req.URL.Host
	for {
		c := d.take(address)
		used := c != nil
		if !used {
			conn, err := d.dial(ctx, "tcp", address)
			if err != nil {
				return nil, err
			}
			c = newWire(conn, address)
		}
		answer, err := d.exchange(ctx, c, req)
		if err == nil || !used || ctx.Err() != nil {
			return answer, err
		}
	}
}

func newWire(conn net.Conn, address string) *wire {
	c := &wire{Conn: conn, address: address, head: &io.LimitedReader{R: conn}, w: bufio.NewWriterSize(conn, 4<<10)}
	c.r = bufio.NewReaderSize(c.head, 8<<10)
	return c
}

// exchange writes the request and reads the answer's head. The connection is
// closed after a failure, and else belongs to the answer's body.
func (d *direct) exchange(ctx context.Context, c *wire, req *http.Request) (*http.Response, error) {
	release := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // a closed one ends by itself
	answer, err := c.ask(ctx, req)
	if err != nil {
		release()
		c.Close()
		return nil, err
	}
	reusable := !answer.Close && !req.Close
	if answer.Body == http.NoBody {
		d.done(c, reusable, release)
		return answer, nil
	}
	answer.Body = &directBody{ReadCloser: answer.Body, end: func(whole bool) { d.done(c, whole && reusable, release) }}
	return answer, nil
}

func (c *wire) ask(ctx context.Context, req *http.Request) (*http.Response, error) {
	if err := req.Write(c.w); err != nil {
		return nil, err
	}
	if err := c.w.Flush(); err != nil {
		return nil, err
	}
	c.head.N = maxHead
	for range maxInformational {
		answer, err := http.ReadResponse(c.r, req)
		switch {
		case err != nil && c.head.N <= 0:
			return nil, fmt.Errorf("the head of the backend's answer has more than %d bytes", maxHead)
		case err != nil:
			return nil, err
		case answer.StatusCode == http.StatusSwitchingProtocols:
			return nil, errors.New("the backend switched protocols, which nobody asked it to")
		case answer.StatusCode >= 200:
			c.head.N = 1 << 62
			return answer, nil
		}
		if t := httptrace.ContextClientTrace(ctx); t != nil && t.Got1xxResponse != nil {
			if err := t.Got1xxResponse(answer.StatusCode, textproto.MIMEHeader(answer.Header)); err != nil {
				return nil, err
			}
		}
	}
	return nil, errors.New("the backend sent too many informational answers")
}

// done takes a connection back.
func (d *direct) done(c *wire, reusable bool, release func() bool) {
	if !release() || !reusable || c.r.Buffered() > 0 {
		c.Close()
		return
	}
	c.since = time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.idle == nil || len(d.idle[c.address]) >= idlePerHost {
		c.Close()
		return
	}
	d.idle[c.address] = append(d.idle[c.address], c)
	if d.sweep == nil {
		d.sweep = time.AfterFunc(idle, d.clean)
	}
}

// take returns the connection that was idle for the shortest time, or nil.
func (d *direct) take(address string) *wire {
	for {
		d.mu.Lock()
		all := d.idle[address]
		if len(all) == 0 {
			d.mu.Unlock()
			return nil
		}
		c := all[len(all)-1]
		all[len(all)-1] = nil
		d.idle[address] = all[:len(all)-1]
		d.mu.Unlock()
		if time.Since(c.since) < idle && c.open() {
			return c
		}
		c.Close()
	}
}

// open says whether the server has neither closed the connection nor said
// anything unasked.
func (c *wire) open() bool {
	raw, ok := c.Conn.(syscall.Conn)
	if !ok {
		return true
	}
	control, err := raw.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = control.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = errors.Is(err, syscall.EAGAIN)
		return true
	})
	return err == nil && quiet
}

// clean closes what was idle for too long.
func (d *direct) clean() {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := 0
	for address, all := range d.idle {
		old := 0
		for old < len(all) && time.Since(all[old].since) >= idle {
			all[old].Close()
			old++
		}
		if all = all[old:]; len(all) == 0 {
			delete(d.idle, address)
			continue
		}
		d.idle[address] = append([]*wire(nil), all...)
		left += len(all)
	}
	d.sweep = nil
	if left > 0 {
		d.sweep = time.AfterFunc(idle/2, d.clean)
	}
}

// close closes the idle connections.
func (d *direct) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for address, all := range d.idle {
		for _, c := range all {
			c.Close()
		}
		delete(d.idle, address)
	}
	if d.sweep != nil {
		d.sweep.Stop()
		d.sweep = nil
	}
}

// directBody gives its connection back once it was read to its end.
type directBody struct {
	io.ReadCloser
	end func(whole bool)
}

// Read implements io.Reader.
func (b *directBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.finish(errors.Is(err, io.EOF))
	}
	return n, err
}

// Close implements io.Closer. What was not read is not waited for.
func (b *directBody) Close() error {
	b.finish(false)
	return nil
}

func (b *directBody) finish(whole bool) {
	if end := b.end; end != nil {
		b.end = nil
		end(whole)
	}
}
