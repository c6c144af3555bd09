// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"net/http"
	"sync"
	"time"

	"kaji/internal/apiserver/request"
)

// work is what a request is thought to cost.
type work struct {
	seats int
	after time.Duration // the seats stay taken that long after its end
}

// Figures of upstream's estimator: what one seat carries.
const (
	bytesPerSeat   = 100_000
	maxListBytes   = 1_000_000 // a list is streamed: more is never in memory
	objectBytes    = 2_000     // of one object, roughly
	watchesPerSeat = 10
	maxWriteSeats  = 10
	eventTime      = 5 * time.Millisecond // until the watchers of one seat are told
)

func (f *Flow) estimate(r *http.Request, in *request.Info, l *level) work {
	switch in.Verb {
	case "list", "watch":
		return work{seats: f.listSeats(r, in, l)}
	case "create", "update", "patch", "delete":
		return f.writeWork(in, l)
	}
	return work{seats: 1}
}

// listSeats depends on how much a list, or the first events of a watch, holds.
func (f *Flow) listSeats(r *http.Request, in *request.Info, l *level) int {
	if in.Name != "" {
		return 1
	}
	if in.Verb == "watch" {
		query := r.URL.Query()
		if rv := query.Get("resourceVersion"); rv != "" && rv != "0" && query.Get("sendInitialEvents") != "true" {
			return 1
		}
	}
	size := min(f.cfg.Count(in)*objectBytes, maxListBytes)
	return l.bound((size+bytesPerSeat-1)/bytesPerSeat, maxListBytes/bytesPerSeat)
}

// writeWork depends on how many watchers there are to tell.
func (f *Flow) writeWork(in *request.Info, l *level) work {
	told := f.watches.count(in)
	if told < watchesPerSeat || in.Resource == "serviceaccounts" && in.Subresource == "token" {
		return work{seats: 1}
	}
	wide := (told + watchesPerSeat - 1) / watchesPerSeat
	seats := l.bound(wide, maxWriteSeats)
	return work{seats: seats, after: time.Duration(wide) * eventTime / time.Duration(seats)}
}

// bound keeps seats within what one request of the level may have.
func (l *level) bound(seats, limit int) int {
	if most := int(l.widest.Load()); most > 0 {
		limit = min(limit, most)
	}
	return min(max(seats, 1), limit)
}

// watches counts the watches there are, by what they select.
type watches struct {
	mu     sync.Mutex
	active map[watched]int
}

type watched struct{ group, resource, namespace, name string }

func of(in *request.Info) watched {
	return watched{in.APIGroup, in.Resource, in.Namespace, in.Name}
}

// add counts a watch until the returned function is called.
func (w *watches) add(in *request.Info) (remove func()) {
	key := of(in)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.active == nil {
		w.active = map[watched]int{}
	}
	w.active[key]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.active[key]--; w.active[key] == 0 {
			delete(w.active, key)
		}
	}
}

// count returns how many watches see a change of the object a request names.
func (w *watches) count(in *request.Info) int {
	key := of(in)
	all := watched{key.group, key.resource, "", ""}
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.active[all]
	if key.namespace != "" {
		n += w.active[watched{key.group, key.resource, key.namespace, ""}]
	}
	if key.name != "" {
		n += w.active[key]
	}
	return n
}
