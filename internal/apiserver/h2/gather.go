// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"net"
	"sync"
)

// Listener returns a listener whose connections take several records of TLS in
// one write, when this server has that many to send: a write to a socket costs
// more than a record's encryption.
func Listener(l net.Listener) net.Listener { return gatherer{l} }

type gatherer struct{ net.Listener }

func (g gatherer) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &gathering{Conn: c}, nil
}

// gathering is a connection whose writes can be held back for a moment.
type gathering struct {
	net.Conn
	mu   sync.Mutex
	held *[]byte // what waits; nil while nothing is held back
}

// batch is how many chunks are written at once.
const batch = 4

var gathered = sync.Pool{New: func() any { b := make([]byte, 0, batch*(chunkSize+256)); return &b }}

// Write implements net.Conn. What is held back fails in release.
func (g *gathering) Write(p []byte) (int, error) {
	g.mu.Lock()
	if g.held == nil {
		g.mu.Unlock()
		return g.Conn.Write(p)
	}
	defer g.mu.Unlock()
	*g.held = append(*g.held, p...)
	return len(p), nil
}

// hold has writes gathered until release.
func (g *gathering) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = gathered.Get().(*[]byte)
}

// release writes what has gathered.
func (g *gathering) release() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	held := g.held
	g.held = nil
	_, err := g.Conn.Write(*held)
	if cap(*held) <= 2*batch*chunkSize {
		*held = (*held)[:0]
		gathered.Put(held)
	}
	return err
}
