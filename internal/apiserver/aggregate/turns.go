// SPDX-License-Identifier: Apache-2.0

package aggregate

import "time"

// atOnce is how many servers are looked at at the same time.
const atOnce = 16

// turns says which APIService is to be looked at when. It is one goroutine's.
type turns map[string]*turn

type turn struct {
	due      time.Time
	failures int
	running  bool
	again    bool // something changed while it was looked at
	gone     bool // it went while it was looked at
}

// hurry makes a name due: something changed that it depends on.
func (t turns) hurry(name string) {
	at := t[name]
	if at == nil {
		at = &turn{}
		t[name] = at
	}
	at.due, at.failures, at.gone, at.again = time.Time{}, 0, false, at.running
}

// forget drops a name.
func (t turns) forget(name string) {
	if at := t[name]; at != nil && at.running {
		at.gone, at.again = true, false
	} else {
		delete(t, name)
	}
}

// take returns a name that is due; finish must be called with it.
func (t turns) take(now time.Time) (name string, ok bool) {
	running := 0
	for n, at := range t {
		switch {
		case at.running:
			running++
		case !at.due.After(now) && !ok:
			name, ok = n, true
		}
	}
	if !ok || running >= atOnce {
		return "", false
	}
	t[name].running = true
	return name, true
}

// finish says that a name was looked at, and whether that is to be tried again
// soon.
func (t turns) finish(name string, now time.Time, failed bool) {
	at := t[name]
	switch {
	case at.gone:
		delete(t, name)
		return
	case at.again:
		at.due, at.failures = now, 0
	case failed:
		at.due = now.Add(min(firstRetry<<min(at.failures, 20), recheck))
		at.failures++
	default:
		at.due, at.failures = now.Add(recheck), 0
	}
	at.running, at.again = false, false
}

// wait returns how long nothing is due; ok is false when nothing will be.
func (t turns) wait(now time.Time) (wait time.Duration, ok bool) {
	for _, at := range t {
		if at.running {
			continue
		}
		if d := max(at.due.Sub(now), 0); !ok || d < wait {
			wait, ok = d, true
		}
	}
	return wait, ok
}
