// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/list"
	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/verb"
	stream "kaji/internal/apiserver/watch"
)

// directWatch implements watch.Interface over a stream of the cache.
type directWatch struct {
	in        *request.Info
	stream    *stream.Stream
	cancel    context.CancelFunc
	events    chan watch.Event
	bookmarks bool
	held      bool // hand out what the cache holds
	stopOnce  sync.Once
}

// Stop implements watch.Interface.
func (w *directWatch) Stop() { w.stopOnce.Do(w.cancel) }

// ResultChan implements watch.Interface.
func (w *directWatch) ResultChan() <-chan watch.Event { return w.events }

// bookmarkEvery is how often a watch that allows bookmarks gets one.
const bookmarkEvery = time.Minute

// run delivers events until the watch ends.
func (w *directWatch) run(ctx context.Context, stopping <-chan struct{}) {
	defer close(w.events)
	defer w.cancel()
	var tick <-chan time.Time
	if w.bookmarks {
		ticker := time.NewTicker(bookmarkEvery)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		if !w.drain(ctx) {
			return
		}
		select {
		case <-w.stream.Ready():
		case <-tick:
			if event, ok := w.stream.Bookmark(); ok && !w.send(ctx, event) {
				return
			}
		case <-w.stream.Ended():
			return
		case <-stopping:
			return
		case <-ctx.Done():
			return
		}
	}
}

// drain delivers the events there are; false ends the watch.
func (w *directWatch) drain(ctx context.Context) bool {
	for {
		event, ok, err := w.stream.TryNext()
		if err != nil {
			return false
		}
		if !ok {
			return true
		}
		if !w.send(ctx, event) {
			return false
		}
	}
}

func (w *directWatch) send(ctx context.Context, event stream.Event) bool {
	out, err := w.event(event)
	if err != nil {
		out = watch.Event{Type: watch.Error, Object: verb.StatusOf(err)}
	}
	select {
	case w.events <- out:
		return err == nil
	case <-ctx.Done():
		return false
	}
}

func (w *directWatch) event(event stream.Event) (watch.Event, error) {
	entry := event.Entry
	if entry == nil {
		entry = w.bookmark(event)
	}
	if w.held {
		return watch.Event{Type: event.Type, Object: entry.Object}, nil
	}
	obj, err := list.InVersion(w.in.Served, entry)
	return watch.Event{Type: event.Type, Object: obj}, err
}

// bookmark returns the object that stands for no object, only a revision.
func (w *directWatch) bookmark(event stream.Event) *cache.Entry {
	var obj api.Object = w.in.Kind.New()
	obj.GetObjectKind().SetGroupVersionKind(request.ServedOf(w.in.Kind, codec.HubVersion(w.in.Kind)).GVK)
	if event.InitialEventsEnd {
		obj.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	codec.SetRevision(obj, event.Revision)
	return &cache.Entry{Object: obj, Revision: event.Revision}
}
