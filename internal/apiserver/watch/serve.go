// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/h2"
	"kaji/internal/apiserver/list"
	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/show"
)

// Config is what one watch is served with. Cache, Options and Form are needed.
type Config struct {
	Cache   *cache.Cache
	Options *list.Options
	Form    *show.Form
	// MinTimeout bounds a watch that names no timeout itself: it ends after
	// once to twice as long; 30 minutes when zero.
	MinTimeout time.Duration
	// Stopping, when set, ends the watch when it ends: the server shuts down.
	Stopping context.Context //nolint:containedctx // of the server, not of a call
	// Dispatcher, when set, serves the watch while it waits for events.
	Dispatcher *Dispatcher
	// Sent, when set, is told of each event written and its bytes.
	Sent func(bytes int)
}

// bookmarkEvery is how often a watch that allows bookmarks gets one, and
// bookmarkBefore how long before its end it gets the last.
const (
	bookmarkEvery  = time.Minute
	bookmarkBefore = 2 * time.Second
)

// Serve answers r with a watch until it ends, or until it has nothing to do but
// wait: then the request outlives its handler. An error is returned before
// anything was written, and is to be answered.
func Serve(w http.ResponseWriter, r *http.Request, cfg Config) error {
	frame, err := newFrame(cfg.Form)
	if err != nil {
		return err
	}
	if cfg.MinTimeout == 0 {
		cfg.MinTimeout = 30 * time.Minute
	}
	timeout := cfg.Options.Timeout
	if timeout == 0 {
		timeout = time.Duration(float64(cfg.MinTimeout) * (1 + rand.Float64()))
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	s := &server{cfg: cfg, ctx: ctx, frame: frame, end: cancel}
	if cfg.Stopping != nil {
		forget := context.AfterFunc(cfg.Stopping, cancel)
		s.end = func() { forget(); cancel() }
	}
	if s.out, err = accept(w, r, frame); err != nil {
		s.end()
		return nil // a failed handshake was answered
	}
	if !s.begin(timeout) {
		s.out.close()
		s.end()
		return nil
	}
	// A form that asks a webhook holds up only its own watch.
	if answer, ok := innermost(w).(h2.Answer); ok && cfg.Dispatcher != nil && !codec.Asks(cfg.Options.Served) {
		detach(s, request.From(r.Context()), answer)
		return nil
	}
	for s.wait() && s.step() {
	}
	s.out.close()
	s.end()
	return nil
}

// server is one watch being served.
type server struct {
	cfg    Config
	ctx    context.Context //nolint:containedctx // of the watch
	end    func()          // ends ctx
	frame  frame
	stream *Stream
	out    sink
	// bookmark is when the next one is due, and last when the watch is about to
	// end; both zero for none.
	bookmark, last time.Time
}

// begin opens the stream and sends what there is. It is false when the watch is
// over.
func (s *server) begin(timeout time.Duration) bool {
	stream, err := Open(s.ctx, s.cfg.Cache, s.cfg.Options)
	if err != nil {
		if s.ctx.Err() == nil {
			_ = s.out.send(string(watch.Error), s.frame.status(err))
			_ = s.out.flush()
		}
		return false
	}
	s.stream = stream
	// What cannot be prepared fails again where it is sent.
	_ = s.cfg.Form.Prepare(stream.Initial())
	if s.cfg.Options.Bookmarks {
		now := time.Now()
		s.bookmark, s.last = now.Add(bookmarkEvery), now.Add(max(timeout-bookmarkBefore, 0))
	}
	if !s.step() {
		return false
	}
	request.Started(s.ctx)
	return true
}

// step sends what there is to send, a bookmark when it is due. It is false when
// the watch is over.
func (s *server) step() bool {
	sent, err := s.drain()
	if sent && s.out.flush() != nil || err != nil {
		return false
	}
	if s.untilBookmark() > 0 {
		return true
	}
	for now := time.Now(); !s.bookmark.After(now); {
		s.bookmark = s.bookmark.Add(bookmarkEvery)
	}
	if !s.last.After(time.Now()) {
		s.last = s.last.Add(time.Hour) // there is none after the last
	}
	if event, ok := s.stream.Bookmark(); ok {
		return s.send(event) == nil && s.out.flush() == nil
	}
	return true
}

// untilBookmark returns how long it is until a bookmark is due; for watches
// without them that never is.
func (s *server) untilBookmark() time.Duration {
	if s.bookmark.IsZero() {
		return math.MaxInt64
	}
	if s.last.Before(s.bookmark) {
		return time.Until(s.last)
	}
	return time.Until(s.bookmark)
}

// wait waits until there is something to send. It is false when the watch is
// over.
func (s *server) wait() bool {
	var due <-chan time.Time
	if !s.bookmark.IsZero() {
		timer := time.NewTimer(s.untilBookmark())
		defer timer.Stop()
		due = timer.C
	}
	// Thousands of watches may wait here for one channel: each further one that
	// they have in common would cost as much again.
	select {
	case <-s.stream.Ready():
		return true
	case <-due:
		return true
	case <-s.out.gone():
		return false
	case <-s.ctx.Done():
		return false
	}
}

// drain sends the events there are.
func (s *server) drain() (sent bool, err error) {
	for s.ctx.Err() == nil {
		event, ok, err := s.stream.TryNext()
		if err != nil || !ok {
			return sent, err
		}
		if err := s.send(event); err != nil {
			return sent, err
		}
		sent = true
	}
	return sent, s.ctx.Err()
}

func (s *server) send(event Event) error {
	var object []byte
	var err error
	if event.Entry == nil {
		object, err = s.cfg.Form.Bookmark(event.Revision, event.InitialEventsEnd)
	} else {
		object, err = s.cfg.Form.Object(event.Entry)
	}
	if err != nil {
		return err
	}
	if s.cfg.Sent != nil {
		s.cfg.Sent(len(object))
	}
	return s.out.send(string(event.Type), object)
}

// statusOf words an error as the Status that an event carries.
func statusOf(err error) *metav1.Status {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		known = apierrors.NewInternalError(err)
	}
	status := known.Status()
	status.Kind, status.APIVersion = "Status", "v1"
	return &status
}

// notAcceptable is the answer to a format that cannot be streamed.
func notAcceptable() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "only the following media types are accepted: " +
			codec.JSON.MediaType() + ";stream=watch, " + codec.Protobuf.MediaType() + ";stream=watch",
	}}
}
