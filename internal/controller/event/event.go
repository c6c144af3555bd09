// SPDX-License-Identifier: Apache-2.0

// Package event records Events for the controllers. The same event again within
// ten minutes counts up the first one.
package event

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/client"
)

// window is how long repetitions are counted, remembered how many events are.
const (
	window     = 10 * time.Minute
	remembered = 4096
)

// Recorder writes Events of one component. It is safe for concurrent use.
type Recorder struct {
	events    client.Typed[*corev1.Event]
	component string
	log       *slog.Logger

	mu   sync.Mutex
	seen map[key]*repeated
}

type key struct{ uid, reason, message string }

type repeated struct {
	name  string
	count int32
	last  time.Time
}

// New returns a recorder; component is upstream's name of the controller.
func New(api client.Interface, component string, log *slog.Logger) *Recorder {
	return &Recorder{events: client.For[*corev1.Event](api), component: component, log: log, seen: map[key]*repeated{}}
}

// Record writes an Event about an object. It is best effort: an Event that
// cannot be written is logged and lost.
func (r *Recorder) Record(ctx context.Context, about metav1.Object, gvk schema.GroupVersionKind, kind, reason, format string, args ...any) {
	message, now := fmt.Sprintf(format, args...), metav1.Now()
	k := key{string(about.GetUID()), reason, message}
	namespace := about.GetNamespace()
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	r.mu.Lock()
	before := r.seen[k]
	if before != nil && now.Sub(before.last) < window {
		before.count++
		before.last = now.Time
		name, count := before.name, before.count
		r.mu.Unlock()
		_, err := r.events.MergePatch(ctx, namespace, name, map[string]any{"count": count, "lastTimestamp": now}, "")
		r.failed(err, reason)
		return
	}
	if len(r.seen) >= remembered {
		clear(r.seen)
	}
	name := fmt.Sprintf("%s.%x", about.GetName(), now.UnixNano())
	r.seen[k] = &repeated{name, 1, now.Time}
	r.mu.Unlock()
	_, err := r.events.Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		InvolvedObject: corev1.ObjectReference{Kind: gvk.Kind, APIVersion: gvk.GroupVersion().String(), Namespace: about.GetNamespace(),
			Name: about.GetName(), UID: about.GetUID(), ResourceVersion: about.GetResourceVersion()},
		Type: kind, Reason: reason, Message: message, Source: corev1.EventSource{Component: r.component}, ReportingController: r.component,
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	})
	r.failed(err, reason)
}

func (r *Recorder) failed(err error, reason string) {
	if err != nil && r.log != nil {
		r.log.Warn("an event could not be written", "reason", reason, "err", err)
	}
}
