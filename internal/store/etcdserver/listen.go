// SPDX-License-Identifier: Apache-2.0

package etcdserver

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

func noSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) }

// split parts the connections of one listener: gRPC goes to calls, everything
// else to pages. On plain connections the HTTP/2 preface tells them apart. With
// TLS the client's offer does: gRPC speaks HTTP/2 only, and who speaks HTTP/1.1
// as well is given that.
func split(l net.Listener, secure *tls.Config) (calls, pages net.Listener) {
	s := &splitter{Listener: l, closed: make(chan struct{})}
	if secure != nil {
		grpcOnly, http1 := secure.Clone(), secure.Clone()
		grpcOnly.NextProtos, http1.NextProtos = []string{"h2"}, []string{"http/1.1"}
		s.secure = secure.Clone()
		s.secure.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Contains(hello.SupportedProtos, "h2") && !slices.Contains(hello.SupportedProtos, "http/1.1") {
				return grpcOnly, nil
			}
			return http1, nil
		}
	}
	s.calls = &half{splitter: s, conns: make(chan net.Conn)}
	s.pages = &half{splitter: s, conns: make(chan net.Conn)}
	go s.accept()
	return s.calls, s.pages
}

// splitter closes with the first of its halves: they end together.
type splitter struct {
	net.Listener
	secure       *tls.Config
	calls, pages *half
	once         sync.Once
	closed       chan struct{}
	err          error
}

type half struct {
	*splitter
	conns chan net.Conn
}

func (h *half) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, h.err
	}
}

func (h *half) Close() error { return h.Listener.Close() }

func (s *splitter) accept() {
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			var temporary net.Error
			if errors.As(err, &temporary) && temporary.Timeout() {
				continue
			}
			s.once.Do(func() { s.err = err; close(s.closed) })
			return
		}
		go s.sort(c)
	}
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// sort looks at how a connection begins and hands it on.
func (s *splitter) sort(c net.Conn) {
	const patience = 10 * time.Second
	if c.SetDeadline(time.Now().Add(patience)) != nil {
		_ = c.Close()
		return
	}
	to := s.pages
	if s.secure != nil {
		secured := tls.Server(c, s.secure)
		if secured.Handshake() != nil {
			_ = c.Close()
			return
		}
		if secured.ConnectionState().NegotiatedProtocol == "h2" {
			to = s.calls
		}
		c = secured
	} else {
		head := make([]byte, len("PRI"))
		n, err := io.ReadFull(c, head)
		if err != nil {
			_ = c.Close()
			return
		}
		if string(head) == preface[:n] {
			to = s.calls
		}
		c = &peeked{Conn: c, Reader: io.MultiReader(bytes.NewReader(head), c)}
	}
	if c.SetDeadline(time.Time{}) != nil {
		_ = c.Close()
		return
	}
	select {
	case to.conns <- c:
	case <-s.closed:
		_ = c.Close()
	}
}

// peeked is a connection whose first bytes were read already.
type peeked struct {
	net.Conn
	io.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.Reader.Read(b) }
