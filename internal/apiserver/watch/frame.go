// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/gorilla/websocket"
	"k8s.io/apimachinery/pkg/watch"

	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/show"
)

// frame writes events in one format: lines of JSON, or protobuf messages, each
// with its length before it.
type frame struct{ format codec.Format }

func newFrame(form *show.Form) (frame, error) {
	if form.Format() == codec.YAML {
		return frame{}, notAcceptable()
	}
	return frame{form.Format()}, nil
}

// contentType returns the media type of the stream.
func (f frame) contentType() string {
	if f.format == codec.JSON {
		return f.format.MediaType()
	}
	return f.format.MediaType() + ";stream=watch"
}

// status encodes an error as an event's object.
func (f frame) status(err error) []byte {
	data, encodeErr := codec.Encode(statusOf(err), f.format, false)
	if encodeErr != nil {
		return []byte("null")
	}
	return bytes.TrimSuffix(data, []byte("\n"))
}

// around returns what stands before and behind an event's object of a size in a
// stream of events. It must not be modified.
func (f frame) around(kind string, size int) (before, behind []byte) {
	if f.format == codec.JSON {
		if before = jsonBefore[kind]; before == nil {
			before = []byte(`{"type":"` + kind + `","object":`)
		}
		return before, jsonBehind
	}
	// metav1.WatchEvent: the type, and the object as a RawExtension.
	before = make([]byte, 4, 32)
	before = append(before, 1<<3|2)
	before = binary.AppendUvarint(before, uint64(len(kind)))
	before = append(before, kind...)
	before = append(before, 2<<3|2)
	before = binary.AppendUvarint(before, uint64(rawExtensionSize(size)))
	before = append(before, 1<<3|2)
	before = binary.AppendUvarint(before, uint64(size))
	binary.BigEndian.PutUint32(before, uint32(len(before)-4+size))
	return before, nil
}

var (
	jsonBefore = map[string][]byte{
		string(watch.Added):    []byte(`{"type":"ADDED","object":`),
		string(watch.Modified): []byte(`{"type":"MODIFIED","object":`),
		string(watch.Deleted):  []byte(`{"type":"DELETED","object":`),
		string(watch.Bookmark): []byte(`{"type":"BOOKMARK","object":`),
	}
	jsonBehind = []byte("}\n")
)

func rawExtensionSize(n int) int {
	var b [binary.MaxVarintLen64]byte
	return 1 + binary.PutUvarint(b[:], uint64(n)) + n
}

// sink is where a watch is written to.
type sink interface {
	send(kind string, object []byte) error
	flush() error
	// gone returns a channel that is closed when the client has left, nil
	// where the request's context tells.
	gone() <-chan struct{}
	close()
}

// accept begins the answer: a stream, or a websocket when the client asks to
// upgrade to one.
func accept(w http.ResponseWriter, r *http.Request, f frame) (sink, error) {
	if websocket.IsWebSocketUpgrade(r) {
		return upgrade(w, r, f)
	}
	w.Header().Set("Content-Type", f.contentType())
	w.WriteHeader(http.StatusOK)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return nil, err
	}
	w = innermost(w)
	flushed := http.NewResponseController(w).Flush
	if direct, ok := w.(interface{ FlushError() error }); ok {
		flushed = direct.FlushError
	}
	return &httpSink{frame: f, w: w, flushed: flushed}, nil
}

// innermost returns the server's own writer of an answer that has begun. Those
// that wrap it to note how it begins are done, and would make each event dearer.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = wrapper.Unwrap()
	}
}

// httpSink writes to the body of an answer.
type httpSink struct {
	frame
	w       io.Writer
	flushed func() error
}

func (s *httpSink) send(kind string, object []byte) error {
	before, behind := s.around(kind, len(object))
	// Writes into the answer's buffer, and no copy of the object.
	if _, err := s.w.Write(before); err != nil {
		return err
	}
	if _, err := s.w.Write(object); err != nil || len(behind) == 0 {
		return err
	}
	_, err := s.w.Write(behind)
	return err
}

func (s *httpSink) flush() error          { return s.flushed() }
func (s *httpSink) gone() <-chan struct{} { return nil }
func (s *httpSink) close()                {}

// socketSink writes a message an event.
type socketSink struct {
	frame
	conn *websocket.Conn
	left chan struct{} // closed when the client has closed
}

func upgrade(w http.ResponseWriter, r *http.Request, f frame) (sink, error) {
	up := websocket.Upgrader{
		// The request was authenticated; where the script that made it came
		// from says nothing more.
		CheckOrigin:  func(*http.Request) bool { return true },
		Subprotocols: websocket.Subprotocols(r),
	}
	conn, err := up.Upgrade(w, r, http.Header{"Content-Type": {f.contentType()}})
	if err != nil {
		return nil, fmt.Errorf("upgrade to websocket: %w", err)
	}
	s := &socketSink{frame: f, conn: conn, left: make(chan struct{})}
	go func() {
		defer close(s.left)
		// Clients have nothing to say: anything read is dropped.
		for {
			if _, _, err := conn.NextReader(); err != nil {
				return
			}
		}
	}()
	return s, nil
}

func (s *socketSink) send(kind string, object []byte) error {
	message := websocket.BinaryMessage
	if s.format == codec.JSON {
		message = websocket.TextMessage
	}
	before, behind := s.around(kind, len(object))
	if s.format != codec.JSON {
		before = before[4:] // a message has its length
	}
	data := slices.Concat(before, object, behind)
	return s.conn.WriteMessage(message, data)
}

func (s *socketSink) flush() error          { return nil }
func (s *socketSink) gone() <-chan struct{} { return s.left }

func (s *socketSink) close() {
	s.conn.Close()
	<-s.left
}
