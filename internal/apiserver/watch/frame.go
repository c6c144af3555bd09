// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"

	"github.com/gorilla/websocket"

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

// event appends an event without what separates it from the next.
func (f frame) event(to []byte, kind string, object []byte) []byte {
	if f.format == codec.JSON {
		to = append(to, `{"type":"`...)
		to = append(to, kind...)
		to = append(to, `","object":`...)
		to = append(to, object...)
		return append(to, '}')
	}
	// metav1.WatchEvent: the type, and the object as a RawExtension.
	to = append(to, 1<<3|2)
	to = binary.AppendUvarint(to, uint64(len(kind)))
	to = append(to, kind...)
	to = append(to, 2<<3|2)
	to = binary.AppendUvarint(to, uint64(rawExtensionSize(len(object))))
	to = append(to, 1<<3|2)
	to = binary.AppendUvarint(to, uint64(len(object)))
	return append(to, object...)
}

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
	return &httpSink{frame: f, w: w, flushed: flusher(w)}, nil
}

// flusher returns what flushes an answer that has begun. Those that wrap the
// writer to note how it begins are done, and would make each flush dearer.
func flusher(w http.ResponseWriter) func() error {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = wrapper.Unwrap()
	}
	if direct, ok := w.(interface{ FlushError() error }); ok {
		return direct.FlushError
	}
	return http.NewResponseController(w).Flush
}

// httpSink writes to the body of an answer.
type httpSink struct {
	frame
	w       io.Writer
	flushed func() error
}

func (s *httpSink) send(kind string, object []byte) error {
	if s.format == codec.JSON {
		// Three writes into the connection's buffer, and no copy of the object.
		if _, err := io.WriteString(s.w, `{"type":"`+kind+`","object":`); err != nil {
			return err
		}
		if _, err := s.w.Write(object); err != nil {
			return err
		}
		_, err := io.WriteString(s.w, "}\n")
		return err
	}
	data := s.event(make([]byte, 4, len(object)+64), kind, object)
	binary.BigEndian.PutUint32(data, uint32(len(data)-4))
	_, err := s.w.Write(data)
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
	data := s.event(nil, kind, object)
	if s.format == codec.JSON {
		data = append(data, '\n')
	}
	return s.conn.WriteMessage(message, data)
}

func (s *socketSink) flush() error          { return nil }
func (s *socketSink) gone() <-chan struct{} { return s.left }

func (s *socketSink) close() {
	s.conn.Close()
	<-s.left
}
