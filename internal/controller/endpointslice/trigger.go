// SPDX-License-Identifier: Apache-2.0

package endpointslice

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/controller/podstate"
	"kaji/internal/controller/queue"
)

// triggers finds when the changes behind a write happened; the latency of the
// network's programming is measured from there.
type triggers struct {
	mu   sync.Mutex
	seen map[queue.Key]map[string]int64 // by pod, "" for the Service itself
}

func (t *triggers) forget(key queue.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.seen, key)
}

// next returns the oldest time not seen before, "" without one.
func (t *triggers) next(key queue.Key, svc *corev1.Service, pods []*corev1.Pod) string {
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
