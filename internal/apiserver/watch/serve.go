// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
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

// Serve answers r with a watch until it ends. An error is returned before
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
	defer cancel()
	if cfg.Stopping != nil {
		defer context.AfterFunc(cfg.Stopping, cancel)()
	}
	out, err := accept(w, r, frame)
	if err != nil {
		return nil // a failed handshake was answered
	}
	defer out.close()
	stream, err := Open(ctx, cfg.Cache, cfg.Options)
	if err != nil {
		if ctx.Err() == nil {
			_ = out.send(string(watch.Error), frame.status(err))
			_ = out.flush()
		}
		return nil
	}
	// What cannot be prepared fails again where it is sent.
	_ = cfg.Form.Prepare(stream.Initial())
	s := &server{cfg: cfg, frame: frame, stream: stream, out: out}
	// A form that asks a webhook holds up only its own watch.
	if cfg.Dispatcher != nil && !codec.Asks(cfg.Options.Served) {
		if answer, ok := innermost(w).(h2.Answer); ok {
			s.waiting = &waiting{server: s, answer: answer, wake: make(chan struct{}, 1)}
		}
	}
	if cfg.Options.Bookmarks {
		deadline := time.NewTimer(max(timeout-bookmarkBefore, 0))
		defer deadline.Stop()
		every := time.NewTicker(bookmarkEvery)
		defer every.Stop()
		s.bookmark, s.last = every.C, deadline.C
	}
	s.serve(ctx)
	return nil
}

// server is one watch being served.
type server struct {
	cfg      Config
	frame    frame
	stream   *Stream
	out      sink
	waiting  *waiting // nil where the dispatcher cannot serve it
	bookmark <-chan time.Time
	last     <-chan time.Time
}

// serve sends events until the watch ends for one reason or another.
func (s *server) serve(ctx context.Context) {
	for first := true; ; first = false {
		sent, err := s.drain(ctx)
		if sent && s.out.flush() != nil || err != nil {
			return
		}
		if first {
			request.Started(ctx)
		}
		more, ok := s.wait(ctx)
		if !ok {
			return
		}
		if more {
			continue
		}
		if event, ok := s.stream.Bookmark(); ok {
			if s.send(event) != nil || s.out.flush() != nil {
				return
			}
		}
	}
}

// wait waits until there is more to send, or a bookmark is due; ok is false when
// the watch is over.
func (s *server) wait(ctx context.Context) (more, ok bool) {
	ready := s.stream.Ready()
	if s.waiting != nil && s.cfg.Dispatcher.join(s.waiting) {
		defer s.cfg.Dispatcher.leave(s.waiting)
		ready = s.waiting.wake
	}
	// Thousands of watches wait here for one channel: each further one that they
	// have in common would cost as much again.
	select {
	case <-ready:
		return true, true
	case <-s.bookmark:
	case <-s.last:
	case <-s.out.gone():
		return false, false
	case <-ctx.Done():
		return false, false
	}
	return false, true
}

// drain sends the events there are.
func (s *server) drain(ctx context.Context) (sent bool, err error) {
	for ctx.Err() == nil {
		event, ok, err := s.stream.TryNext()
		if err != nil || !ok {
			return sent, err
		}
		if err := s.send(event); err != nil {
			return sent, err
		}
		sent = true
	}
	return sent, ctx.Err()
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
