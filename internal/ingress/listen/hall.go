// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// helloTimeout is how long a client may take to say whom it wants.
	helloTimeout = 10 * time.Second
	// maxHello bounds what is read of a connection before it is known whose it is.
	maxHello = 64 << 10
)

// hall is where connections wait until they have said, in the clear text that
// begins a TLS handshake, whom they want. Those that divert takes never reach
// the server behind it.
type hall struct {
	net.Listener
	divert func(name string, conn net.Conn) func(context.Context, net.Conn)
	// ctx is that of connections in the hall, carry of those that were taken.
	ctx, carry context.Context
	stop, cut  context.CancelFunc
	running    sync.WaitGroup
	ready      chan net.Conn
	// ended is closed with err set.
	ended chan struct{}
	err   error
}

func newHall(l net.Listener, divert func(string, net.Conn) func(context.Context, net.Conn)) *hall {
	h := &hall{Listener: l, divert: divert, ready: make(chan net.Conn), ended: make(chan struct{})}
	h.carry, h.cut = context.WithCancel(context.Background())
	h.ctx, h.stop = context.WithCancel(h.carry)
	h.running.Go(h.accept)
	return h
}

func (h *hall) accept() {
	defer h.stop()
	defer close(h.ended)
	for delay := time.Millisecond; ; {
		conn, err := h.Listener.Accept()
		var n net.Error
		switch {
		case err == nil:
			delay = time.Millisecond
			h.running.Go(func() { h.receive(conn) })
		case errors.As(err, &n) && n.Timeout() || isTemporary(err):
			// Too many open files, for instance: others close theirs.
			time.Sleep(delay)
			delay = min(2*delay, time.Second)
		default:
			h.err = err
			return
		}
	}
}

func isTemporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary() && !errors.Is(err, net.ErrClosed)
}

// receive reads a connection's first words and leads it on.
func (h *hall) receive(conn net.Conn) {
	unblock := context.AfterFunc(h.ctx, func() { conn.SetReadDeadline(time.Now()) })
	defer unblock()
	_ = conn.SetReadDeadline(time.Now().Add(helloTimeout)) // a closed connection shows when it is read
	name, read, err := peek(conn)
	if err != nil && len(read) == 0 || h.ctx.Err() != nil {
		conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	conn = &replayed{Conn: conn, first: read}
	if take := h.divert(name, conn); take != nil {
		defer conn.Close()
		take(h.carry, conn)
		return
	}
	select {
	case h.ready <- conn:
	case <-h.ctx.Done():
		conn.Close()
	}
}

// Accept implements net.Listener.
func (h *hall) Accept() (net.Conn, error) {
	select {
	case conn := <-h.ready:
		return conn, nil
	case <-h.ended:
		return nil, h.err
	}
}

// Close implements net.Listener. Connections that were taken go on until drain.
func (h *hall) Close() error { return h.Listener.Close() }

// drain ends what is left in the hall, and waits for the connections that were
// taken; they are cut off when ctx ends.
func (h *hall) drain(ctx context.Context) {
	h.stop()
	defer context.AfterFunc(ctx, h.cut)()
	h.running.Wait()
}

// peek reads the client's first message. It returns the name in it and all that
// was read, also where it is no such message: the server says so then.
func peek(conn net.Conn) (name string, read []byte, err error) {
	var kept bytes.Buffer
	reader := &onlyReads{Conn: conn, from: io.TeeReader(io.LimitReader(conn, maxHello), &kept)}
	seen := errors.New("seen")
	err = tls.Server(reader, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		name = hello.ServerName
		return nil, seen
	}}).Handshake()
	if errors.Is(err, seen) {
		err = nil
	}
	return name, kept.Bytes(), err
}

// onlyReads lets a handshake begin and nothing come of it.
type onlyReads struct {
	net.Conn
	from io.Reader
}

// Read implements net.Conn.
func (o *onlyReads) Read(p []byte) (int, error) { return o.from.Read(p) }

// Write implements net.Conn: alerts go nowhere.
func (o *onlyReads) Write(p []byte) (int, error) { return len(p), nil }

// Close implements net.Conn and does nothing.
func (o *onlyReads) Close() error { return nil }

// SetWriteDeadline implements net.Conn and does nothing.
func (o *onlyReads) SetWriteDeadline(time.Time) error { return nil }

// replayed gives again what was read of a connection.
type replayed struct {
	net.Conn
	first []byte
}

// Read implements net.Conn.
func (r *replayed) Read(p []byte) (int, error) {
	if len(r.first) > 0 {
		n := copy(p, r.first)
		r.first = r.first[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}

// CloseWrite says that no more is sent, where the connection can.
func (r *replayed) CloseWrite() error {
	if half, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return r.Conn.Close()
}
