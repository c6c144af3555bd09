// SPDX-License-Identifier: Apache-2.0

// Package h2 serves HTTP/2 (RFC 9113) behind net/http's server, in place of the
// one that comes with it.
//
// A watch sends small pieces on many streams of a connection, and net/http's
// server hands each of them from the handler to the connection's goroutine, to
// a goroutine that writes it, and back: that costs several times what the piece
// costs. Here a handler appends its frame to the connection's output itself, under
// the connection's lock; one goroutine writes what has gathered, as long as
// there is something. Frames are parsed by golang.org/x/net/http2. A handler may
// leave its answer to others, who send on it without a goroutine each (Answer).
//
// The API server puts ServeConn into http.Server.TLSNextProto and registers
// Shutdown with it. There is no server push, no upgrade from HTTP/1 and no
// extended CONNECT.
package h2

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// Config configures a Server; the zero value of each field has a meaning.
type Config struct {
	// MaxStreams bounds the requests of one connection at a time; 100 when zero.
	MaxStreams int
	// MaxHeaderBytes bounds the head of a request; 1 MiB when zero.
	MaxHeaderBytes int
	// Window is how much of bodies a client may send before it is read, on all
	// streams of a connection together, at least 64 KiB; 4 MiB when zero. It is
	// many times what one stream may have, so that a request which waits its turn,
	// its body unread, does not hold up the others.
	Window int
	// IdleTimeout ends connections without requests; 90 s when zero.
	IdleTimeout time.Duration
	// WriteTimeout ends connections whose client takes nothing of what is
	// written to it; one minute when zero.
	WriteTimeout time.Duration
	// Logger is told of handlers that panic; nil tells nobody.
	Logger *slog.Logger
}

// Server serves connections. Its methods are safe for concurrent use.
type Server struct {
	cfg Config

	mu       sync.Mutex
	conns    map[*conn]struct{}
	stopping bool
}

// New returns a server without connections.
func New(cfg Config) *Server {
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = 100
	}
	if cfg.MaxHeaderBytes == 0 {
		cfg.MaxHeaderBytes = http.DefaultMaxHeaderBytes
	}
	if cfg.Window == 0 {
		cfg.Window = 16 * streamWindow
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = 90 * time.Second
	}
	if cfg.WriteTimeout == 0 {
		cfg.WriteTimeout = time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg, conns: map[*conn]struct{}{}}
}

// ServeConn serves one connection until it ends, and returns when its handlers
// have. It has the signature that http.Server.TLSNextProto wants.
func (s *Server) ServeConn(_ *http.Server, tc *tls.Conn, h http.Handler) {
	ctx := context.Background()
	if base, ok := h.(interface{ BaseContext() context.Context }); ok {
		ctx = base.BaseContext()
	}
	c := newConn(s.cfg, tc, h)
	c.greet()
	s.mu.Lock()
	s.conns[c] = struct{}{}
	stopping := s.stopping
	s.mu.Unlock()
	if stopping {
		c.leave()
	}
	c.serve(ctx)
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// Shutdown tells all clients to open no more streams; connections end with the
// last of their requests. It does not wait.
func (s *Server) Shutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
	for c := range s.conns {
		c.leave()
	}
}
