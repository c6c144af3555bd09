// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// streamWindow is what a client may send on a stream before it is read.
	streamWindow = 256 << 10
	// maxReadFrame bounds the frames that are read.
	maxReadFrame = 64 << 10

	// maxOutput is how much output may gather before handlers wait, and
	// maxFlood how much before the client is taken for an attacker: one that asks
	// for answers (to pings, say) and does not read them.
	maxOutput = 256 << 10
	maxFlood  = 1 << 20
	// initialWindow, defaultFrame and defaultTable are the protocol's.
	initialWindow = 65535
	defaultFrame  = 16 << 10
	defaultTable  = 4096
	maxWindow     = 1<<31 - 1
)

const (
	// prefaceTimeout bounds the beginning of a connection.
	prefaceTimeout = 10 * time.Second
	// lingering is how long a client may go on sending after it was told that
	// the connection ends, or was answered before it had sent all, so that it
	// reads what it was told.
	lingering = 250 * time.Millisecond
)

// conn is one connection. One goroutine reads its frames (serve), each request
// has one unless its answer is detached, and one writes while there is output.
type conn struct {
	cfg     Config
	tc      *tls.Conn
	handler http.Handler
	remote  string
	tls     *tls.ConnectionState
	ctx     context.Context //nolint:containedctx // the parent of the requests'
	in      *bufio.Reader
	framer  *http2.Framer  // reads only
	all     sync.WaitGroup // handlers, and who writes

	mu sync.Mutex
	// All below is guarded by mu.

	streams map[uint32]*stream
	last    uint32 // the highest stream that was opened
	running int    // handlers
	waiting []*stream
	leaving bool // no more streams are taken
	err     error
	idle    *time.Timer

	inWindow int // what the client may still send
	credit   int // what was read of that, and the client does not know of

	window    int64 // what may still be sent
	initial   int64 // the same of a new stream
	maxFrame  int   // that may be sent
	out       output
	writing   bool
	crowded   bool      // somebody waits for out to shrink
	room      sync.Cond // there may be room to send, or nobody writes any more
	encoder   *hpack.Encoder
	encoded   bytes.Buffer
	canonical map[string]string // header names that clients send
}

func newConn(cfg Config, tc *tls.Conn, h http.Handler) *conn {
	state := tc.ConnectionState()
	c := &conn{
		cfg: cfg, tc: tc, handler: h, remote: tc.RemoteAddr().String(), tls: &state, in: bufio.NewReader(tc),
		streams: map[uint32]*stream{}, inWindow: cfg.Window,
		window: initialWindow, initial: initialWindow, maxFrame: defaultFrame,
	}
	c.room.L = &c.mu
	c.encoder = hpack.NewEncoder(&c.encoded)
	c.framer = http2.NewFramer(io.Discard, c.in)
	c.framer.SetMaxReadFrameSize(maxReadFrame)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(defaultTable, nil)
	c.framer.MaxHeaderListSize = uint32(cfg.MaxHeaderBytes)
	c.framer.SetReuseFrames()
	return c
}

// serve reads the connection until it ends.
func (c *conn) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	c.ctx = ctx
	err := c.preface()
	for err == nil {
		err = c.next()
	}
	c.mu.Lock()
	var broken http2.ConnectionError
	switch {
	case errors.As(err, &broken):
		c.goAway(http2.ErrCode(broken))
	case errors.Is(err, http2.ErrFrameTooLarge):
		c.goAway(http2.ErrCodeFrameSize)
	}
	c.fail(err)
	cancel()
	// The last words get a moment.
	_ = c.tc.SetWriteDeadline(time.Now().Add(lingering))
	c.flush()
	for c.writing {
		c.room.Wait()
	}
	c.mu.Unlock()
	_ = c.tc.Close()
	c.all.Wait()
}

// fail ends everything on the connection but what waits to be written.
func (c *conn) fail(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	c.idle.Stop()
	for _, st := range c.streams {
		st.fail(err)
	}
	c.room.Broadcast()
}

// greet says what the server allows.
func (c *conn) greet() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = time.AfterFunc(c.cfg.IdleTimeout, c.leave)
	c.settings(
		http2.Setting{ID: http2.SettingMaxFrameSize, Val: maxReadFrame},
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(c.cfg.MaxStreams)},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: uint32(c.cfg.MaxHeaderBytes)},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
	)
	c.windowUpdate(0, c.cfg.Window-initialWindow)
	c.flush()
}

// preface reads what every client says first.
func (c *conn) preface() error {
	_ = c.tc.SetReadDeadline(time.Now().Add(prefaceTimeout))
	var got [len(http2.ClientPreface)]byte
	if _, err := io.ReadFull(c.in, got[:]); err != nil {
		return err
	}
	if string(got[:]) != http2.ClientPreface {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	f, err := c.framer.ReadFrame()
	if err != nil {
		return err
	}
	settings, ok := f.(*http2.SettingsFrame)
	if !ok || settings.IsAck() {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.leaving {
		_ = c.tc.SetReadDeadline(time.Time{})
	}
	return c.onSettings(settings)
}

// leave takes no more streams; the connection ends with the last that is open.
func (c *conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaveLocked()
}

func (c *conn) leaveLocked() {
	if c.leaving || c.err != nil {
		return
	}
	c.leaving = true
	c.goAway(http2.ErrCodeNo)
	c.flush()
	if len(c.streams) == 0 {
		_ = c.tc.SetReadDeadline(time.Now().Add(lingering))
	}
}

// next reads and handles one frame.
func (c *conn) next() error {
	f, err := c.framer.ReadFrame()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		err = c.handle(f)
	}
	var bad http2.StreamError
	if errors.As(err, &bad) {
		c.reset(bad.StreamID, bad.Code)
		err = nil
	}
	if c.out.size > maxFlood {
		err = http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	c.flush()
	return err
}

func (c *conn) handle(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		return c.onHeaders(f)
	case *http2.DataFrame:
		return c.onData(f)
	case *http2.WindowUpdateFrame:
		return c.onWindowUpdate(f)
	case *http2.RSTStreamFrame:
		if f.StreamID > c.last || f.StreamID%2 == 0 {
			return http2.ConnectionError(http2.ErrCodeProtocol) // it is idle
		}
		if st := c.streams[f.StreamID]; st != nil {
			st.fail(http2.StreamError{StreamID: f.StreamID, Code: f.ErrCode})
			c.forget(st)
		}
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return c.onSettings(f)
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			c.frame(http2.FramePing, http2.FlagPingAck, 0, len(f.Data))
			c.out.put(f.Data[:])
		}
	case *http2.PriorityFrame: // a wish, which nobody follows
		if f.StreamDep == f.StreamID {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
		}
	case *http2.GoAwayFrame:
		c.leaveLocked()
	case *http2.PushPromiseFrame, *http2.ContinuationFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil
}

func (c *conn) onSettings(f *http2.SettingsFrame) error {
	if f.HasDuplicates() {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingHeaderTableSize:
			c.encoder.SetMaxDynamicTableSize(min(s.Val, defaultTable))
		case http2.SettingInitialWindowSize:
			more := int64(s.Val) - c.initial
			c.initial = int64(s.Val)
			for _, st := range c.streams {
				if st.window += more; st.window > maxWindow {
					return http2.ConnectionError(http2.ErrCodeFlowControl)
				}
			}
			c.room.Broadcast()
		case http2.SettingMaxFrameSize:
			c.maxFrame = int(min(s.Val, maxReadFrame))
		}
		return nil
	})
	if err == nil {
		c.frame(http2.FrameSettings, http2.FlagSettingsAck, 0, 0)
	}
	return err
}

func (c *conn) onWindowUpdate(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		if c.window += int64(f.Increment); c.window > maxWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		c.room.Broadcast()
		return nil
	}
	if f.StreamID > c.last {
		return http2.ConnectionError(http2.ErrCodeProtocol) // it is idle
	}
	if st := c.streams[f.StreamID]; st != nil {
		if st.window += int64(f.Increment); st.window > maxWindow {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
		}
		c.room.Broadcast()
	}
	return nil
}

// reset ends a stream in disorder.
func (c *conn) reset(id uint32, code http2.ErrCode) {
	c.frame(http2.FrameRSTStream, 0, id, 4)
	c.word(uint32(code))
	if st := c.streams[id]; st != nil {
		st.fail(http2.StreamError{StreamID: id, Code: code})
		c.forget(st)
	}
}

// forget lets go of a stream that has ended.
func (c *conn) forget(st *stream) {
	if c.streams[st.id] != st {
		return
	}
	delete(c.streams, st.id)
	c.consumed(nil, st.body.Len())
	st.body = bytes.Buffer{}
	if len(c.streams) > 0 || c.err != nil {
		return
	}
	if c.leaving {
		_ = c.tc.SetReadDeadline(time.Now().Add(lingering))
		return
	}
	c.idle.Reset(c.cfg.IdleTimeout)
}

// consumed gives back what was received and is no longer held: to the
// connection, and to the stream unless that is nil.
func (c *conn) consumed(st *stream, n int) {
	if c.credit += n; c.credit >= c.cfg.Window/2 {
		c.windowUpdate(0, c.credit)
		c.inWindow += c.credit
		c.credit = 0
	}
	if st == nil || st.ended || st.err != nil {
		return
	}
	if st.credit += n; st.credit >= streamWindow/2 {
		c.windowUpdate(st.id, st.credit)
		st.inWindow += st.credit
		st.credit = 0
	}
}
