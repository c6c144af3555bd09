// SPDX-License-Identifier: Apache-2.0

package h2

import "golang.org/x/net/http2"

// Answer is what the http.ResponseWriter of a request of this server is
// besides: an answer that another goroutine than the handler's may go on
// sending, without waiting, while the handler lets it.
type Answer interface {
	// TrySend sends three pieces behind each other, all or nothing, if there is
	// room for them now. They leave with the connection's next Flush.
	TrySend(a, b, c []byte) Outcome
	// Conn returns the connection that the answer is sent on.
	Conn() Conn

	// Detach lets an answer whose head is sent outlive its handler: when that has
	// returned, then runs in a goroutine of the answer. The answer goes on until End.
	Detach(then func())
	// Go runs f in a goroutine of a detached answer.
	Go(f func())
	// End ends a detached answer.
	End()
}

// Conn is a connection with many answers. It is comparable, and its methods are
// safe for concurrent use.
type Conn interface {
	// Flush has written what was sent. It does not wait for that.
	Flush()
	// AwaitRoom waits until the connection takes more, or ends.
	AwaitRoom()
	// Go runs f in a goroutine that the connection waits for at its end. A
	// handler of the connection must be under way.
	Go(f func())
}

// Outcome is what became of an attempt to send.
type Outcome int

const (
	// Sent says that all was taken.
	Sent Outcome = iota
	// Crowded says that the connection's client has to read first.
	Crowded
	// Blocked says that this answer cannot be sent without waiting: it waits
	// for its client's window, is too large, or is over.
	Blocked
)

// maxTry bounds what is sent at once without waiting.
const maxTry = 128 << 10

// Conn implements Answer.
func (w *response) Conn() Conn { return w.st.c }

// TrySend implements Answer.
func (w *response) TrySend(a, b, c []byte) Outcome {
	st, conn := w.st, w.st.c
	size := int64(len(a) + len(b) + len(c))
	if !w.sent || w.buf != nil || w.length >= 0 || size > maxTry {
		return Blocked
	}
	conn.mu.Lock()
	defer conn.mu.Unlock()
	switch {
	case st.err != nil || size > st.window || size > conn.window:
		return Blocked
	case conn.out.size > maxOutput:
		return Crowded
	}
	st.window -= size
	conn.window -= size
	w.written += size
	pieces := [...][]byte{a, b, c}
	for at, frame := 0, 0; size > 0; {
		if frame == 0 {
			frame = int(min(size, int64(conn.maxFrame)))
			conn.frame(http2.FrameData, 0, st.id, frame)
		}
		n := min(len(pieces[at]), frame)
		conn.out.put(pieces[at][:n])
		pieces[at] = pieces[at][n:]
		frame -= n
		size -= int64(n)
		if len(pieces[at]) == 0 {
			at++
		}
	}
	return Sent
}

// Detach implements Answer.
func (w *response) Detach(then func()) {
	w.then = then
	if len(w.sealed["Trailer"]) == 0 {
		w.sealed = nil // it is sent
	}
	w.st.c.all.Add(1) // which is done at the end
}

// Go implements Answer.
func (w *response) Go(f func()) {
	c := w.st.c
	c.all.Go(func() {
		defer func() {
			if reason := recover(); reason != nil {
				c.panicked(reason)
			}
		}()
		f()
	})
}

// End implements Answer.
func (w *response) End() {
	w.finish()
	w.st.over(nil)
	w.st.c.all.Done()
}

// Flush implements Conn.
func (c *conn) Flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush()
}

// AwaitRoom implements Conn.
func (c *conn) AwaitRoom() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.out.size > maxOutput && c.err == nil {
		c.crowded = true
		c.flush()
		c.room.Wait()
	}
}

// Go implements Conn.
func (c *conn) Go(f func()) { c.all.Go(f) }
