// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"io"
	"sync"

	auditapi "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
)

// Log returns a back end that writes events to w, one a line: as JSON, or, when
// legacy is set, in upstream's old text form. Writes are whole lines, never two
// at a time, and hold the events of all who waited for the last. A request goes
// on when its own are written.
func Log(w io.Writer, legacy bool) audit.Backend { return &log{out: w, legacy: legacy} }

type log struct {
	legacy bool

	writing sync.Mutex // held by who writes
	out     io.Writer

	mu        sync.Mutex
	gathering *batch // what is written next, if somebody waits
}

// batch is what one write writes.
type batch struct {
	lines []byte
	done  chan struct{} // closed when it is written
	err   error
}

// maxBatch bounds a write, but for a single event; a file that is rotated takes
// no more at once than it may hold.
const maxBatch = 64 << 10

// ProcessEvents implements audit.Sink.
func (l *log) ProcessEvents(events ...*auditapi.Event) bool {
	whole := true
	lines := linePool.Get().(*[]byte)
	defer func() {
		if cap(*lines) <= maxBatch { // one large body must not be kept for ever
			*lines = (*lines)[:0]
			linePool.Put(lines)
		}
	}()
	for _, event := range events {
		if err := l.line(lines, event); err != nil {
			audit.HandlePluginError(l.String(), err, event)
			whole = false
		}
	}
	if err := l.write(*lines); err != nil {
		audit.HandlePluginError(l.String(), err, events...)
		return false
	}
	return whole
}

var linePool = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

// line appends an event, or nothing when it cannot be encoded.
func (l *log) line(to *[]byte, event *auditapi.Event) (err error) {
	if l.legacy {
		*to = append(append(*to, audit.EventString(event)...), '\n')
		return nil
	}
	before := len(*to)
	if *to, err = appendEvent(*to, event); err != nil {
		*to = (*to)[:before]
		return err
	}
	*to = append(*to, '\n')
	return nil
}

// write returns when lines are written. The first of those that wait for the
// same write does it.
func (l *log) write(lines []byte) error {
	l.mu.Lock()
	b := l.gathering
	first := b == nil || len(b.lines)+len(lines) > maxBatch
	if first {
		b = &batch{done: make(chan struct{})}
		l.gathering = b
	}
	b.lines = append(b.lines, lines...)
	l.mu.Unlock()
	if !first {
		<-b.done
		return b.err
	}
	l.writing.Lock()
	l.mu.Lock()
	if l.gathering == b {
		l.gathering = nil
	}
	l.mu.Unlock()
	_, b.err = l.out.Write(b.lines)
	l.writing.Unlock()
	close(b.done)
	return b.err
}

// Run implements audit.Backend.
func (l *log) Run(<-chan struct{}) error { return nil }

// Shutdown implements audit.Backend.
func (l *log) Shutdown() {}

// String implements audit.Backend; metrics name the back end by it.
func (l *log) String() string { return "log" }

// Lenient returns a back end whose failures stop no request.
func Lenient(b audit.Backend) audit.Backend { return lenient{b} }

type lenient struct{ audit.Backend }

// ProcessEvents implements audit.Sink.
func (l lenient) ProcessEvents(events ...*auditapi.Event) bool {
	l.Backend.ProcessEvents(events...)
	return true
}
