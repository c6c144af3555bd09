// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	"kaji/internal/ingress/upstream"
)

// Pipe connects a client with an endpoint of the pool and carries the bytes of
// both until one of them is done, or ctx ends. The caller closes conn.
func (p *Proxy) Pipe(ctx context.Context, conn net.Conn, pool *upstream.Pool, connect time.Duration) error {
	to, err := p.transport.Connect(ctx, pool, connect)
	if err != nil {
		return err
	}
	defer to.Close()
	end := context.AfterFunc(ctx, func() { to.Close(); conn.Close() })
	defer end()
	var back sync.WaitGroup
	back.Go(func() { carry(conn, to) })
	carry(to, conn)
	back.Wait()
	return nil
}

// carry copies until the source ends, and tells the destination so.
func carry(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
		_ = half.CloseWrite() // a peer that is gone needs no word
		return
	}
	// Without a word for "no more", or after a failure, both directions end.
	to.Close()
	from.Close()
}
