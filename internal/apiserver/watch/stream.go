// SPDX-License-Identifier: Apache-2.0

// Package watch serves watches: the events of a kind from a revision on, those
// of the selected objects only, framed as the client asked.
//
// The API server's verb watch calls Serve; the in-process client reads a
// Stream. Every watch walks the cache's one list of events with a cursor and shares
// the encodings of all others. One over HTTP/2 that has nothing to do but wait
// goes on without its handler: the Dispatcher walks for it, and for all others of
// its connection (decision 0008).
package watch

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"

	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/list"
)

// Event is one event of a watch.
type Event struct {
	Type watch.EventType
	// Entry is the object; nil for a bookmark.
	Entry *cache.Entry
	// Revision of a bookmark: all events up to it have been sent.
	Revision int64
	// InitialEventsEnd marks the bookmark behind the objects that existed.
	InitialEventsEnd bool
}

// Stream is an open watch. It belongs to one goroutine at a time.
type Stream struct {
	cache   *cache.Cache
	options *list.Options
	cursor  *cache.Cursor
	// initial is what existed and is still to be sent, as ADDED.
	initial []*cache.Entry
	// endInitial sends a bookmark at this revision behind it.
	endInitial int64
}

// Open begins a watch. An error is what the client is told in an event.
func Open(ctx context.Context, c *cache.Cache, o *list.Options) (*Stream, error) {
	s := &Stream{cache: c, options: o}
	if !o.SendInitialEvents && o.Revision > 0 {
		cursor, err := c.Watch(ctx, o.Served.Kind, o.Revision)
		if errors.Is(err, cache.ErrTooOld) {
			return nil, apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", o.Revision, c.Revision()))
		}
		s.cursor = cursor
		return s, err
	}
	at, err := list.Newest(ctx, c, o)
	if err != nil {
		return nil, err
	}
	s.cursor = c.Cursor(at)
	if o.SendInitialEvents {
		for e := range o.Entries(at) {
			s.initial = append(s.initial, e)
		}
		if o.Bookmarks {
			s.endInitial = at.Revision
		}
	}
	return s, nil
}

// Initial returns what existed and is still to be sent.
func (s *Stream) Initial() []*cache.Entry { return s.initial }

// TryNext returns the next event; ok is false when there is none yet. It
// returns an error when the watch is over.
func (s *Stream) TryNext() (event Event, ok bool, err error) {
	if len(s.initial) > 0 {
		e := s.initial[0]
		s.initial = s.initial[1:]
		return Event{Type: watch.Added, Entry: e}, true, nil
	}
	s.initial = nil
	if revision := s.endInitial; revision > 0 {
		s.endInitial = 0
		return Event{Type: watch.Bookmark, Revision: revision, InitialEventsEnd: true}, true, nil
	}
	for {
		change, err := s.cursor.TryNext()
		if change == nil || err != nil {
			return Event{}, false, err
		}
		if event, ok := s.seen(change); ok {
			return event, true, nil
		}
	}
}

// seen says what a watcher of the selected objects sees of a change: objects
// that come to match are added to its world, those that no longer do leave it.
func (s *Stream) seen(change *cache.Event) (Event, bool) {
	matches, matched := s.options.Sees(change)
	switch {
	case matches && matched:
		return Event{Type: watch.Modified, Entry: change.Entry}, true
	case matches:
		return Event{Type: watch.Added, Entry: change.Entry}, true
	case matched:
		return Event{Type: watch.Deleted, Entry: change.Gone()}, true
	}
	return Event{}, false
}

// Bookmark returns a bookmark at the newest revision that is known to hold
// nothing unsent; ok is false when events wait to be sent.
func (s *Stream) Bookmark() (event Event, ok bool) {
	// The revision is read first: what it covers is in the cursor's list.
	revision := s.cache.Revision()
	if len(s.initial) > 0 || s.endInitial > 0 {
		return Event{}, false
	}
	select {
	case <-s.cursor.Ready():
		return Event{}, false
	default:
		return Event{Type: watch.Bookmark, Revision: revision}, true
	}
}

// Ready returns a channel that is closed when TryNext may have an event.
func (s *Stream) Ready() <-chan struct{} { return s.cursor.Ready() }

// Ended returns a channel that is closed when no more events will come.
func (s *Stream) Ended() <-chan struct{} { return s.cursor.Ended() }
