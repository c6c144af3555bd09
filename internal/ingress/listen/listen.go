// SPDX-License-Identifier: Apache-2.0

// Package listen holds the ports that Ingresses and Gateways are served at: it
// opens and closes them as they are wanted, tries again where a port belongs to
// another, and runs an HTTP server on each. What the clients get is decided by
// the owner's handlers.
package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"kaji/internal/lifecycle"
)

const (
	// firstRetry and lastRetry are the pauses between tries to listen.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
	// grace is how long requests may finish when a port is closed.
	grace         = 3 * time.Second
	headerTimeout = time.Minute
	idleTimeout   = 75 * time.Second
	maxHeader     = 64 << 10
	// streams bounds the requests at once on a connection of HTTP/2.
	streams = 250
)

// Config says what is served.
type Config struct {
	// Listen opens a port.
	Listen func(ctx context.Context, port uint16) (net.Listener, error)
	// Handler returns what answers at a port, by TLS or in the clear.
	Handler func(port uint16, secure bool) http.Handler
	// Certificate chooses the certificate of a handshake at a port.
	Certificate func(port uint16, hello *tls.ClientHelloInfo) (*tls.Certificate, error)
	// Divert, asked before a handshake, may take a connection by the name that
	// is asked for; nil leaves it. What it returns runs until it is done with
	// the connection, which is closed then.
	Divert func(port uint16, name string, conn net.Conn) func(ctx context.Context, conn net.Conn)
	// Leftover, unless nil, gets the connections that a closed port leaves; else
	// they have a moment to end.
	Leftover *lifecycle.Leftover
	// Changed is called when a port has begun or ceased to be open.
	Changed func()
	Logger  *slog.Logger
}

// Set are the open ports. Create it with New.
type Set struct {
	c       Config
	running sync.WaitGroup

	mu    sync.Mutex // guards ports
	ports map[uint16]*port
}

// port is one that is wanted.
type port struct {
	number uint16
	secure bool
	set    *Set
	stop   context.CancelFunc

	// bound is the address listened at, or err says why there is none; the
	// Set's mutex guards them.
	bound net.Addr
	err   error
}

// New returns a set without ports.
func New(c Config) *Set { return &Set{c: c, ports: map[uint16]*port{}} }

// Want makes the wanted ports those that are open; the value says whether a
// port speaks TLS. They close when ctx ends.
func (s *Set) Want(ctx context.Context, wanted map[uint16]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for number, p := range s.ports {
		if secure, ok := wanted[number]; !ok || secure != p.secure {
			p.stop()
			delete(s.ports, number)
		}
	}
	for number, secure := range wanted {
		if s.ports[number] != nil {
			continue
		}
		inner, stop := context.WithCancel(ctx)
		p := &port{number: number, secure: secure, set: s, stop: stop}
		s.ports[number] = p
		s.running.Go(func() { p.run(inner) })
	}
}

// Wait returns once all ports are closed, which they are with their context.
func (s *Set) Wait() { s.running.Wait() }

// Bound returns the address that a port is open at, or nil.
func (s *Set) Bound(number uint16) net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.ports[number]; p != nil {
		return p.bound
	}
	return nil
}

// Problem says why a wanted port is not open; nil where it is, or where that
// has not been tried yet.
func (s *Set) Problem(number uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.ports[number]; p != nil {
		return p.err
	}
	return nil
}

func (p *port) note(bound net.Addr, err error) {
	p.set.mu.Lock()
	changed := (p.bound == nil) != (bound == nil) || fmt.Sprint(p.err) != fmt.Sprint(err)
	p.bound, p.err = bound, err
	p.set.mu.Unlock()
	if changed && p.set.c.Changed != nil {
		p.set.c.Changed()
	}
}

// run listens, trying again while the port belongs to another, and serves.
func (p *port) run(ctx context.Context) {
	log := p.set.c.Logger
	said := ""
	for delay := firstRetry; ctx.Err() == nil; delay = min(2*delay, lastRetry) {
		l, err := p.set.c.Listen(ctx, p.number)
		if err == nil {
			p.note(l.Addr(), nil)
			p.serve(ctx, l)
			p.note(nil, nil)
			return
		}
		if ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			log.Warn("the port cannot be listened at; it is tried again", "port", p.number, "err", err)
			p.note(nil, plain(p.number, err))
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
	}
}

// plain says it in the words of someone who has to do something about it.
func plain(number uint16, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("port %d is in use by another program", number)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("port %d: this machine does not have the address", number)
	}
	return fmt.Errorf("port %d: %w", number, err)
}

func (p *port) serve(ctx context.Context, l net.Listener) {
	c := p.set.c
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	h := p.server(inner)
	done := make(chan error, 1)
	serve, carried := func() { done <- h.Serve(l) }, func(context.Context) {}
	if p.secure {
		hall := newHall(l, func(name string, conn net.Conn) func(context.Context, net.Conn) {
			return c.Divert(p.number, name, conn)
		})
		carried = hall.drain
		serve = func() { done <- h.ServeTLS(hall, "", "") }
	}
	finish := func(ctx context.Context) {
		defer stop()
		if h.Shutdown(ctx) != nil {
			h.Close()
		}
		carried(ctx)
	}
	go serve()
	select {
	case err := <-done:
		c.Logger.Error("a listener ended", "port", p.number, "err", err)
		finish(ctx)
		return
	case <-ctx.Done():
	}
	l.Close() // the port is free from now on, whatever is left
	if c.Leftover != nil {
		<-done
		c.Leftover.Go(finish)
		return
	}
	ending, cancel := context.WithTimeout(inner, grace)
	defer cancel()
	finish(ending)
	<-done
}

func (p *port) server(ctx context.Context) *http.Server {
	c := p.set.c
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	h := &http.Server{
		Handler: c.Handler(p.number, p.secure), Protocols: protocols, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		HTTP2:       &http.HTTP2Config{MaxConcurrentStreams: streams},
		BaseContext: func(net.Listener) context.Context { return ctx }, ConnContext: withDestination,
		// What clients do wrong in handshakes and headers is their business.
		ErrorLog: log.New(debug{c.Logger}, "", 0),
	}
	if p.secure {
		h.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.Certificate(p.number, hello)
		}}
	}
	return h
}

// debug writes lines of a log at the lowest level.
type debug struct{ to *slog.Logger }

// Write implements io.Writer.
func (d debug) Write(line []byte) (int, error) {
	d.to.Debug(string(line))
	return len(line), nil
}

// At returns a Listen for an IP address of this machine, all of them when empty.
func At(address string) func(ctx context.Context, port uint16) (net.Listener, error) {
	return func(ctx context.Context, port uint16) (net.Listener, error) {
		return new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
	}
}
