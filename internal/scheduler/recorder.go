// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/reference"

	"kaji/internal/client"
)

// recorder writes events, in order and beside the loop. When the API server is
// slower than the scheduler, events are dropped rather than waited for.
type recorder struct {
	events   client.Typed[*eventsv1.Event]
	log      *slog.Logger
	instance string
	queue    chan *eventsv1.Event
	seen     map[seriesKey]*eventsv1.Event
}

const (
	eventBacklog  = 16384
	eventSeries   = 4096             // series remembered
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
	return &recorder{
		events: client.For[*eventsv1.Event](c), log: log, instance: hostname,
		queue: make(chan *eventsv1.Event, eventBacklog), seen: map[seriesKey]*eventsv1.Event{},
	}
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
	case r.queue <- e:
	default:
		r.log.Warn("event dropped, too many are waiting", "reason", reason, "object", ref.Namespace+"/"+ref.Name)
	}
}

// run writes events until ctx ends.
func (r *recorder) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-r.queue:
			if err := r.write(ctx, e); err != nil && ctx.Err() == nil {
				r.log.Error("event not written", "reason", e.Reason, "object", e.Regarding.Namespace+"/"+e.Regarding.Name, "err", err)
			}
		}
	}
}

func (r *recorder) write(ctx context.Context, e *eventsv1.Event) error {
	key := seriesKey{regarding: e.Regarding, kind: e.Type, reason: e.Reason, action: e.Action, note: e.Note,
		controller: e.ReportingController, reportingInstance: e.ReportingInstance}
	if e.Related != nil {
		key.related = *e.Related
	}
	first := r.seen[key]
	if first == nil {
		if len(r.seen) >= eventSeries {
			clear(r.seen)
		}
		r.seen[key] = e
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
