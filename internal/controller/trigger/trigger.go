// SPDX-License-Identifier: Apache-2.0

// Package trigger tells when the changes behind a write of endpoints happened;
// the latency of the network's programming is measured from there. The
// controllers that write endpoints share it.
package trigger

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/controller/podstate"
	"kaji/internal/controller/queue"
)

// Times remembers which changes were seen. Create it with New; it is safe for
// concurrent use.
type Times struct {
	mu   sync.Mutex
	seen map[queue.Key]map[string]int64 // by pod, "" for the Service itself
}

// New returns an empty memory.
func New() *Times { return &Times{seen: map[queue.Key]map[string]int64{}} }

// Forget drops a Service.
func (t *Times) Forget(key queue.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.seen, key)
}

// Next returns the oldest time not seen before, as the annotation holds it; ""
// without one.
func (t *Times) Next(key queue.Key, svc *corev1.Service, pods []*corev1.Pod) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.seen[key]
	now := make(map[string]int64, len(pods)+1)
	var oldest time.Time
	note := func(name string, at time.Time) {
		if at.IsZero() {
			return
		}
		now[name] = at.UnixNano()
		if last, ok := before[name]; ok && last >= now[name] {
			return
		}
		if oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
	}
	for _, pod := range pods {
		since, _ := podstate.Ready(pod)
		note(pod.Name, since)
	}
	if before == nil || len(pods) == 0 {
		note("", svc.CreationTimestamp.Time)
	} else if at, ok := before[""]; ok {
		now[""] = at
	}
	t.seen[key] = now
	if oldest.IsZero() {
		return ""
	}
	return oldest.UTC().Format(time.RFC3339Nano)
}
