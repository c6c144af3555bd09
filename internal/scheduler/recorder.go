// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/reference"

	"kaji/internal/client"
)

// recorder writes events beside the loop, those about one object in order. When
// the API server is slower than the scheduler, events are dropped rather than
// waited for.
type recorder struct {
	events   client.Typed[*eventsv1.Event]
	log      *slog.Logger
	instance string
	lanes    [eventLanes]lane
	seed     maphash.Seed
}

// lane is a queue of events that are written one after another.
type lane struct {
	queue chan *eventsv1.Event
	seen  map[seriesKey]*eventsv1.Event
}

const (
	eventLanes    = 16
	eventBacklog  = 4096             // of a lane
	eventSeries   = 512              // series remembered in a lane
	seriesRefresh = 30 * time.Minute // how often a long series is written again
	noteLimit     = 1024             // bytes of a note, as the API allows
)

// seriesKey tells events apart that are not repetitions of one another.
type seriesKey struct {
	regarding                                                 corev1.ObjectReference
	related                                                   corev1.ObjectReference
	kind, reason, action, note, controller, reportingInstance string
}

func newRecorder(c client.Interface, hostname string, log *slog.Logger) *recorder {
	r := &recorder{events: client.For[*eventsv1.Event](c), log: log, instance: hostname, seed: maphash.MakeSeed()}
	for i := range r.lanes {
		r.lanes[i] = lane{make(chan *eventsv1.Event, eventBacklog), map[seriesKey]*eventsv1.Event{}}
	}
	return r
}

// event queues an event of the named profile.
func (r *recorder) event(controller string, regarding, related client.Object, kind, reason, action, note string) {
	ref, err := reference.GetReference(scheme.Scheme, regarding)
	if err != nil {
		r.log.Error("event without reference", "reason", reason, "err", err)
		return
	}
	var relatedRef *corev1.ObjectReference
	if related != nil {
		relatedRef, _ = reference.GetReference(scheme.Scheme, related)
	}
	if len(note) > noteLimit {
		note = note[:noteLimit-len(" ...")] + " ..."
	}
	namespace := ref.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	now := metav1.NowMicro()
	e := &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Name: fmt.Sprintf("%s.%x", ref.Name, now.UnixNano()), Namespace: namespace},
		EventTime:           now,
		ReportingController: controller, ReportingInstance: controller + "-" + r.instance,
		Action: action, Reason: reason, Regarding: *ref, Related: relatedRef, Note: note, Type: kind,
	}
	select {
	case r.lanes[maphash.String(r.seed, string(ref.UID))%eventLanes].queue <- e:
	default:
		r.log.Warn("event dropped, too many are waiting", "reason", reason, "object", ref.Namespace+"/"+ref.Name)
	}
}

// start writes events until ctx ends, in goroutines that begin starts.
func (r *recorder) start(ctx context.Context, begin func(func())) {
	for i := range r.lanes {
		begin(func() { r.run(ctx, &r.lanes[i]) })
	}
}

func (r *recorder) run(ctx context.Context, l *lane) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-l.queue:
			if err := r.write(ctx, l, e); err != nil && ctx.Err() == nil {
				r.log.Error("event not written", "reason", e.Reason, "object", e.Regarding.Namespace+"/"+e.Regarding.Name, "err", err)
			}
		}
	}
}

func (r *recorder) write(ctx context.Context, l *lane, e *eventsv1.Event) error {
	key := seriesKey{regarding: e.Regarding, kind: e.Type, reason: e.Reason, action: e.Action, note: e.Note,
		controller: e.ReportingController, reportingInstance: e.ReportingInstance}
	if e.Related != nil {
		key.related = *e.Related
	}
	first := l.seen[key]
	if first == nil {
		if len(l.seen) >= eventSeries {
			clear(l.seen)
		}
		l.seen[key] = e
		_, err := r.events.Create(ctx, e)
		return err
	}
	series := eventsv1.EventSeries{Count: 2, LastObservedTime: e.EventTime}
	due := true
	if old := first.Series; old != nil {
		series.Count = old.Count + 1
		due = e.EventTime.Sub(old.LastObservedTime.Time) >= seriesRefresh
		if !due {
			series.LastObservedTime = old.LastObservedTime
		}
	}
	first.Series = &series
	if !due {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"series": series})
	if err != nil {
		return err
	}
	_, err = r.events.Patch(ctx, first.Namespace, first.Name, "application/strategic-merge-patch+json", patch, "")
	return err
}
