// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"encoding/binary"
	"errors"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// chunkSize is how much is written at once: what a TLS record holds.
const chunkSize = 16 << 10

var chunks = sync.Pool{New: func() any { b := make([]byte, 0, chunkSize); return &b }}

// output is what waits to be written to a connection, in the order it was put.
type output struct {
	chunks []*[]byte // all but the last are full
	size   int
}

func (o *output) put(p []byte) {
	o.size += len(p)
	for len(p) > 0 {
		last := len(o.chunks) - 1
		if last < 0 || len(*o.chunks[last]) == chunkSize {
			o.chunks = append(o.chunks, chunks.Get().(*[]byte))
			last++
		}
		chunk := o.chunks[last]
		n := min(len(p), chunkSize-len(*chunk))
		*chunk = append(*chunk, p[:n]...)
		p = p[n:]
	}
}

// take returns the first chunk; the caller gives it back to the pool.
func (o *output) take() *[]byte {
	first := o.chunks[0]
	o.chunks[0] = nil
	if o.chunks = o.chunks[1:]; len(o.chunks) == 0 {
		o.chunks = nil
	}
	o.size -= len(*first)
	return first
}

func release(chunk *[]byte) {
	*chunk = (*chunk)[:0]
	chunks.Put(chunk)
}

// flush has what is in out written. Like all methods below but write it is called
// with conn.mu held.
func (c *conn) flush() {
	if !c.writing && c.out.size > 0 {
		c.writing = true
		c.all.Go(c.write)
	}
}

// write writes what there is, and what gathers meanwhile.
func (c *conn) write() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.out.size > 0 {
		if c.out.size < chunkSize && c.err == nil {
			// Let those who are about to send join: a write costs more than
			// all that goes before it.
			c.mu.Unlock()
			runtime.Gosched()
			c.mu.Lock()
		}
		var some [batch]*[]byte
		n := 0
		for n < batch && c.out.size > 0 {
			some[n] = c.out.take()
			n++
		}
		if c.err == nil { // or else serve has set it
			_ = c.tc.SetWriteDeadline(time.Now().Add(c.cfg.WriteTimeout))
		}
		if c.crowded && c.out.size < maxOutput/2 {
			c.crowded = false
			c.room.Broadcast()
		}
		c.mu.Unlock()
		err := c.writeAll(some[:n])
		c.mu.Lock()
		if err != nil {
			c.fail(err)
			c.out = output{}
			_ = c.tc.NetConn().Close() // wakes serve
		}
	}
	c.writing = false
	c.room.Broadcast()
}

// writeAll writes chunks, by one write to the socket where the listener allows.
func (c *conn) writeAll(some []*[]byte) (err error) {
	if g, ok := c.tc.NetConn().(*gathering); ok && len(some) > 1 {
		g.hold()
		defer func() { err = errors.Join(err, g.release()) }()
	}
	for _, chunk := range some {
		if err == nil {
			_, err = c.tc.Write(*chunk)
		}
		release(chunk)
	}
	return err
}

// frame appends the head of a frame.
func (c *conn) frame(t http2.FrameType, flags http2.Flags, id uint32, length int) {
	head := [9]byte{byte(length >> 16), byte(length >> 8), byte(length), byte(t), byte(flags)}
	binary.BigEndian.PutUint32(head[5:], id)
	c.out.put(head[:])
}

// word appends a number of a frame.
func (c *conn) word(n uint32) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	c.out.put(b[:])
}

func (c *conn) settings(all ...http2.Setting) {
	c.frame(http2.FrameSettings, 0, 0, 6*len(all))
	for _, s := range all {
		var id [2]byte
		binary.BigEndian.PutUint16(id[:], uint16(s.ID))
		c.out.put(id[:])
		c.word(s.Val)
	}
}

func (c *conn) windowUpdate(id uint32, n int) {
	c.frame(http2.FrameWindowUpdate, 0, id, 4)
	c.word(uint32(n))
}

// goAway says that no streams are taken any more.
func (c *conn) goAway(code http2.ErrCode) {
	c.frame(http2.FrameGoAway, 0, 0, 8)
	c.word(c.last)
	c.word(uint32(code))
}

// head appends the head of an answer; without a status these are trailers.
func (c *conn) head(id uint32, status int, h http.Header, end bool) {
	c.encoded.Reset()
	if status > 0 {
		c.field(":status", strconv.Itoa(status))
	}
	for name, values := range h {
		lower := strings.ToLower(name)
		if !httpguts.ValidHeaderFieldName(lower) || hopByHop(lower) {
			continue
		}
		for _, value := range values {
			if httpguts.ValidHeaderFieldValue(value) {
				c.field(lower, value)
			}
		}
	}
	block := c.encoded.Bytes()
	flags := http2.Flags(0)
	if end {
		flags = http2.FlagHeadersEndStream
	}
	for t := http2.FrameHeaders; ; t, flags = http2.FrameContinuation, 0 {
		part := block[:min(len(block), c.maxFrame)]
		block = block[len(part):]
		if len(block) == 0 {
			flags |= http2.FlagHeadersEndHeaders
		}
		c.frame(t, flags, id, len(part))
		c.out.put(part)
		if len(block) == 0 {
			return
		}
	}
}

func (c *conn) field(name, value string) {
	_ = c.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // into a buffer
}

// hopByHop says whether a header is of HTTP/1's connections.
func hopByHop(lower string) bool {
	switch lower {
	case "connection", "proxy-connection", "keep-alive", "upgrade", "transfer-encoding":
		return true
	}
	return false
}

// send appends two pieces of an answer's body, as the client's windows and the
// output's size allow, and waits where they do not.
func (c *conn) send(st *stream, a, b []byte, end bool) error {
	for {
		if st.err != nil {
			return st.err
		}
		left := len(a) + len(b)
		n := int(min(int64(left), int64(c.maxFrame), max(0, min(st.window, c.window))))
		last := n == left
		switch {
		case last && n == 0 && !end:
			return nil
		case c.out.size > maxOutput:
			c.crowded = true
			fallthrough
		case !last && n == 0:
			c.flush()
			c.room.Wait()
			continue
		}
		flags := http2.Flags(0)
		if last && end {
			flags = http2.FlagDataEndStream
		}
		st.window -= int64(n)
		c.window -= int64(n)
		c.frame(http2.FrameData, flags, st.id, n)
		fromA := min(n, len(a))
		c.out.put(a[:fromA])
		c.out.put(b[:n-fromA])
		a, b = a[fromA:], b[n-fromA:]
		if last {
			return nil
		}
	}
}
