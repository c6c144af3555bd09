// SPDX-License-Identifier: Apache-2.0

// Package event records Events for the controllers, as many as tell something:
// the same event again within ten minutes counts up the first one, many that
// differ in their message only become one, an object that is spoken of without
// end is spoken of seldom, and a storm about many objects is cut. These are the
// rules of client-go's recorder, with its numbers. Writing never holds up who has
// something to tell.
package event

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
)

const (
	// window is how long repetitions are counted.
	window = 10 * time.Minute
	// different is how many messages of one reason about one object are told
	// apart; all others are combined.
	different = 9
	combined  = "(combined from similar events): "
	// remembered is about how many objects.
	remembered = 4096
	// unwritten is how many events may wait; more are lost.
	unwritten = 1000
)

// What is written of one type about one object, and by one recorder altogether.
var (
	perObject = rate{burst: 25, every: 5 * time.Minute}
	overall   = rate{burst: 1000, every: 20 * time.Millisecond}
)

// Recorder writes Events of one component. It is safe for concurrent use.
type Recorder struct {
	events    client.Typed[*corev1.Event]
	component string
	log       *slog.Logger

	mu      sync.Mutex
	objects map[types.UID]*spoken
	all     bucket
	stamp   int64 // of the last name; two events may come in one nanosecond
	queue   []*pending
	named   map[string]*pending // what waits, by name
	writing bool
}

// pending is an event that is to be written; count is what the server has of it.
type pending struct {
	ctx   context.Context
	event *corev1.Event
	had   int32
}

// spoken is what was told about one object.
type spoken struct {
	buckets map[string]*bucket // by the type of the events
	reasons map[reason]*similar
}

// take says whether one more event of a type is written about the object.
func (s *spoken) take(kind string, now time.Time) bool {
	b := s.buckets[kind]
	if b == nil {
		b = &bucket{}
		s.buckets[kind] = b
	}
	return b.take(perObject, now)
}

type reason struct{ kind, reason string }

// similar are the events of one reason, by message.
type similar struct {
	last     time.Time
	messages map[string]*repeated
}

type repeated struct {
	name        string
	count       int32
	first, last time.Time
	combined    bool // of several messages
}

// New returns a recorder; component is upstream's name of the controller.
func New(api client.Interface, component string, log *slog.Logger) *Recorder {
	return &Recorder{events: client.For[*corev1.Event](api), component: component, log: log, objects: map[types.UID]*spoken{}, named: map[string]*pending{}}
}

// Record tells about an object. It returns at once; the events are written in
// their order while ctx lasts, by a goroutine that lives as long as there are any.
// It is best effort: an Event that cannot be written is logged and lost.
func (r *Recorder) Record(ctx context.Context, about metav1.Object, gvk schema.GroupVersionKind, kind, why, format string, args ...any) {
	message, now := fmt.Sprintf(format, args...), metav1.Now()
	namespace := about.GetNamespace()
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e, written := r.observe(about, reason{kind, why}, &message, now.Time)
	if !written {
		return
	}
	if w := r.named[namespace+"/"+e.name]; w != nil { // counted up before it was written
		w.event.Count, w.event.LastTimestamp, w.event.Message = e.count, now, message
		return
	}
	if len(r.queue) >= unwritten {
		r.failed(fmt.Errorf("%d others are not written yet", unwritten), why)
		return
	}
	reporting := r.component
	if e.combined {
		reporting = "" // as client-go's
	}
	w := &pending{ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: e.name},
		InvolvedObject: corev1.ObjectReference{Kind: gvk.Kind, APIVersion: gvk.GroupVersion().String(), Namespace: about.GetNamespace(),
			Name: about.GetName(), UID: about.GetUID(), ResourceVersion: about.GetResourceVersion()},
		Type: kind, Reason: why, Message: message, Source: corev1.EventSource{Component: r.component}, ReportingController: reporting,
		FirstTimestamp: metav1.NewTime(e.first), LastTimestamp: now, Count: e.count,
	}, e.count - 1}
	r.queue, r.named[namespace+"/"+e.name] = append(r.queue, w), w
	if !r.writing {
		r.writing = true
		go r.drain()
	}
}

// drain writes what waits.
func (r *Recorder) drain() {
	for {
		r.mu.Lock()
		if len(r.queue) == 0 {
			r.queue, r.writing = nil, false
			r.mu.Unlock()
			return
		}
		w := r.queue[0]
		r.queue = r.queue[1:]
		delete(r.named, w.event.Namespace+"/"+w.event.Name)
		r.mu.Unlock()
		r.failed(r.write(w), w.event.Reason)
	}
}

// write counts up an event of the server's, or makes it.
func (r *Recorder) write(w *pending) error {
	e := w.event
	if w.had > 0 {
		_, err := r.events.MergePatch(w.ctx, e.Namespace, e.Name, map[string]any{"count": e.Count, "lastTimestamp": e.LastTimestamp, "message": e.Message}, "")
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	_, err := r.events.Create(w.ctx, e)
	return err
}

// observe counts an event and says under which name, how often and whether it is
// written; message changes when it is combined. The caller holds mu.
func (r *Recorder) observe(about metav1.Object, why reason, message *string, now time.Time) (e repeated, written bool) {
	s := r.objects[about.GetUID()]
	if s == nil {
		if len(r.objects) >= remembered {
			clear(r.objects)
		}
		s = &spoken{buckets: map[string]*bucket{}, reasons: map[reason]*similar{}}
		r.objects[about.GetUID()] = s
	}
	of := s.reasons[why]
	if of == nil || now.Sub(of.last) > window {
		of = &similar{messages: map[string]*repeated{}}
		s.reasons[why] = of
	}
	of.last = now
	key := *message
	if of.messages[key] == nil && len(of.messages) >= different {
		key, *message = combined, combined+*message
	}
	before := of.messages[key]
	if before == nil || now.Sub(before.last) >= window {
		r.stamp = max(r.stamp+1, now.UnixNano())
		before = &repeated{name: fmt.Sprintf("%s.%x", about.GetName(), r.stamp), first: now, combined: key == combined}
	}
	of.messages[key] = before // what is not written counts, too
	before.count++
	before.last = now
	return *before, s.take(why.kind, now) && r.all.take(overall, now)
}

func (r *Recorder) failed(err error, reason string) {
	if err != nil && r.log != nil {
		r.log.Warn("an event could not be written", "reason", reason, "err", err)
	}
}

// rate allows a burst, and one more every so often.
type rate struct {
	burst float64
	every time.Duration
}

// bucket is what is left of a rate. Its zero value is full.
type bucket struct {
	used float64
	last time.Time
}

func (b *bucket) take(r rate, now time.Time) bool {
	b.used = max(0, b.used-float64(now.Sub(b.last))/float64(r.every))
	b.last = now
	if b.used+1 > r.burst {
		return false
	}
	b.used++
	return true
}
