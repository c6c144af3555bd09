// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/json"
	"io"
	"sync"

	auditapi "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit"
)

// Log returns a back end that writes events to w, one a line: as JSON, or, when
// legacy is set, in upstream's old text form. Writes are whole lines, never two
// at a time.
func Log(w io.Writer, legacy bool) audit.Backend { return &log{out: w, legacy: legacy} }

type log struct {
	legacy bool

	mu  sync.Mutex // guards both
	out io.Writer
	buf bytes.Buffer
}

// ProcessEvents implements audit.Sink.
func (l *log) ProcessEvents(events ...*auditapi.Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	whole := true
	for _, event := range events {
		if err := l.write(event); err != nil {
			audit.HandlePluginError(l.String(), err, event)
			whole = false
		}
	}
	return whole
}

func (l *log) write(event *auditapi.Event) error {
	l.buf.Reset()
	if l.legacy {
		l.buf.WriteString(audit.EventString(event))
		l.buf.WriteByte('\n')
	} else {
		var v1 auditv1.Event
		if err := auditv1.Convert_audit_Event_To_v1_Event(event, &v1, nil); err != nil {
			return err
		}
		v1.Kind, v1.APIVersion = "Event", auditv1.SchemeGroupVersion.String()
		if err := json.NewEncoder(&l.buf).Encode(&v1); err != nil {
			return err
		}
	}
	_, err := l.out.Write(l.buf.Bytes())
	if l.buf.Cap() > 1<<20 {
		l.buf = bytes.Buffer{} // one large body must not be kept for ever
	}
	return err
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
