// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"crypto/tls"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// firstRetry and lastRetry are the pauses between tries to listen.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
	// grace is how long requests may finish when the controller ends.
	grace         = 3 * time.Second
	headerTimeout = time.Minute
	idleTimeout   = 75 * time.Second
	maxHeader     = 64 << 10
)

// server is one listener.
type server struct {
	address string
	secure  bool
	c       *Controller
	// bound is the address listened at, nil before.
	bound atomic.Pointer[net.TCPAddr]
}

func (c *Controller) newServer(address string, secure bool) *server {
	return &server{address: address, secure: secure, c: c}
}

// run listens, trying again while the port belongs to another, and serves.
func (s *server) run(ctx context.Context) {
	said := ""
	for delay := firstRetry; ; delay = min(2*delay, lastRetry) {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.address)
		if err == nil {
			s.serve(ctx, l)
			return
		}
		if ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			s.c.log.Warn("Ingresses are not served at this address: it cannot be listened at; it is tried again", "address", s.address, "err", err)
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return
		}
	}
}

func (s *server) serve(ctx context.Context, l net.Listener) {
	s.bound.Store(l.Addr().(*net.TCPAddr))
	s.c.touch() // the addresses can be published
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	h := &http.Server{
		Handler: &front{s.c, s.secure}, Protocols: protocols, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return inner },
		ErrorLog:    quiet(s.c.log),
		TLSConfig:   &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.c.certificateFor},
	}
	done := make(chan error, 1)
	go func() {
		if s.secure {
			done <- h.ServeTLS(l, "", "")
			return
		}
		done <- h.Serve(l)
	}()
	select {
	case err := <-done:
		s.c.log.Error("the listener for Ingresses ended", "address", s.address, "err", err)
		return
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(inner, grace)
	defer cancel()
	if h.Shutdown(ending) != nil {
		h.Close()
	}
	<-done
}

// quiet takes what clients do wrong in handshakes and headers.
func quiet(to *slog.Logger) *log.Logger { return slog.NewLogLogger(to.Handler(), slog.LevelDebug) }

// port is the port the server listens at, or would.
func (s *server) port() int {
	if at := s.bound.Load(); at != nil {
		return at.Port
	}
	if at, err := net.ResolveTCPAddr("tcp", s.address); err == nil {
		return at.Port
	}
	return 0
}
