// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"net"
	"sync"
)

// merged is several listeners as one.
type merged struct {
	all    []net.Listener
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newMerged(all []net.Listener) *merged {
	return &merged{all: all, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// run accepts on every listener until Close or the end of ctx.
func (m *merged) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = m.Close() })
	defer stop()
	var accepting sync.WaitGroup
	for _, l := range m.all {
		accepting.Go(func() { m.accept(l) })
	}
	accepting.Wait()
	return nil
}

func (m *merged) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return // closed
		}
		select {
		case m.conns <- conn:
		case <-m.closed:
			_ = conn.Close()
			return
		}
	}
}

// Accept implements net.Listener.
func (m *merged) Accept() (net.Conn, error) {
	select {
	case conn := <-m.conns:
		return conn, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (m *merged) Close() (err error) {
	m.once.Do(func() {
		close(m.closed)
		err = closeAll(m.all)
	})
	return err
}

// Addr implements net.Listener with the first address.
func (m *merged) Addr() net.Addr { return m.all[0].Addr() }
