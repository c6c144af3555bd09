// SPDX-License-Identifier: Apache-2.0

// Package fair shares the seats of one priority level out among flows. A
// request takes seats while it is served; when none is free it waits in one of
// the level's queues. Each flow has a few queues of its own (its hand, dealt by
// shuffle sharding) and waits in the least busy of them, so that a flood fills
// the hand of its flow and leaves the queues of others. Free seats go to the
// queue that has had the least service so far.
//
// Package flow keeps one Level a priority level. Nothing here knows HTTP or the
// API; nothing runs by itself. A request that need not wait costs a lock and no
// allocation but its Ticket.
//
// The algorithm is start-time fair queueing (Goyal, Vin, Cheng, 1996): the
// virtual time of a level is the start tag of the request served last; a queue's
// tag advances by the seat-seconds its requests use, guessed when they start and
// corrected when they end.
package fair

import (
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/util/shufflesharding"
)

// Queueing is how a level lets requests wait. The zero value lets none wait.
type Queueing struct {
	// Queues is their number, Hand how many of them a flow may use, and Length
	// how many requests may wait in each.
	Queues, Hand, Length int
}

// Reasons of refusals, as metrics name them.
const (
	Full      = "queue-full"
	TimeOut   = "time-out"
	Limited   = "concurrency-limit"
	Cancelled = "cancelled"
)

// guess is how long a request is thought to take until it is over.
const guess = 3 * time.Millisecond

// Level is a priority level. Its methods are safe for concurrent use.
type Level struct {
	mu       sync.Mutex // guards everything below
	limit    int        // seats; those in use may be more after it has shrunk
	queueing Queueing
	dealer   *shufflesharding.Dealer // nil without queues
	queues   []*queue
	next     int // the queue that is asked first among equals
	virtual  float64
	waiting  int // requests
	wanted   int // seats of those
	running  int // requests
	inUse    int // seats
	demand   demand
}

// queue holds requests of some flows in the order they came.
type queue struct {
	waiting []*Ticket
	seats   int     // of requests waiting and running
	tag     float64 // virtual time, in seat-seconds
}

// Ticket is a request that was let in, until Release.
type Ticket struct {
	level   *Level
	queue   *queue
	seats   int
	started time.Time
	granted chan struct{} // nil when it need not wait
	done    bool          // granted
}

// NewLevel returns a level with limit seats.
func NewLevel(limit int, q Queueing) *Level {
	l := &Level{limit: limit, demand: demand{since: time.Now()}}
	l.setQueueing(q)
	return l
}

// Reconfigure changes how requests wait; those that wait go on waiting.
func (l *Level) Reconfigure(q Queueing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q == l.queueing {
		return
	}
	old := l.queues
	l.setQueueing(q)
	for i, from := range old {
		if len(l.queues) == 0 {
			l.queues = old // drained in the old shape
			break
		}
		to := l.queues[i%len(l.queues)]
		for _, t := range from.waiting {
			t.queue = to
			to.waiting = append(to.waiting, t)
			to.seats += t.seats
		}
	}
}

func (l *Level) setQueueing(q Queueing) {
	l.queueing, l.dealer, l.queues, l.next = q, nil, nil, 0
	if q.Queues == 0 {
		return
	}
	dealer, err := shufflesharding.NewDealer(q.Queues, min(q.Hand, q.Queues))
	if err != nil {
		// Validation keeps such hands out of the API; one queue for each flow
		// is the safe reading of what is there.
		dealer, _ = shufflesharding.NewDealer(q.Queues, 1)
	}
	l.dealer = dealer
	l.queues = make([]*queue, q.Queues)
	for i := range l.queues {
		l.queues[i] = &queue{tag: l.virtual}
	}
}

// SetLimit changes the number of seats.
func (l *Level) SetLimit(limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = limit
	l.dispatch(time.Now())
}

// Acquire takes seats for a request of the flow with that hash, after waiting
// for at most wait. Without a Ticket the reason says why. The hash of a flow
// must always be the same.
func (l *Level) Acquire(ctx context.Context, hash uint64, seats int, wait time.Duration) (t *Ticket, waited time.Duration, reason string) {
	now := time.Now()
	l.mu.Lock()
	q := l.choose(hash)
	t = &Ticket{level: l, queue: q, seats: seats}
	if l.waiting == 0 && l.fits(seats) {
		if q != nil && q.seats == 0 {
			q.tag = max(q.tag, l.virtual)
		}
		l.start(t, now)
		l.mu.Unlock()
		return t, 0, ""
	}
	if q == nil {
		l.mu.Unlock()
		return nil, 0, Limited
	}
	if len(q.waiting) >= l.queueing.Length {
		l.mu.Unlock()
		return nil, 0, Full
	}
	l.enqueue(t, now)
	l.dispatch(now)
	l.mu.Unlock()
	return l.wait(ctx, t, now, wait)
}

// choose deals the hand of a flow and returns its least busy queue.
func (l *Level) choose(hash uint64) *queue {
	if l.dealer == nil {
		return nil
	}
	var best *queue
	l.dealer.Deal(hash, func(i int) {
		if q := l.queues[i]; best == nil || q.seats < best.seats {
			best = q
		}
	})
	return best
}

// fits says whether seats are free; a request wider than the level runs alone.
func (l *Level) fits(seats int) bool { return l.inUse == 0 && l.limit > 0 || l.inUse+seats <= l.limit }

func (l *Level) enqueue(t *Ticket, now time.Time) {
	q := t.queue
	if q.seats == 0 {
		q.tag = max(q.tag, l.virtual)
	}
	t.granted = make(chan struct{})
	q.waiting = append(q.waiting, t)
	q.seats += t.seats
	l.waiting++
	l.wanted += t.seats
	l.demand.set(l.inUse+l.wanted, now)
}

// start lets a request run that does not wait (any more).
func (l *Level) start(t *Ticket, now time.Time) {
	t.started, t.done = now, true
	l.running++
	l.inUse += t.seats
	if t.queue != nil {
		l.virtual = max(l.virtual, t.queue.tag)
		t.queue.tag += cost(t.seats, guess)
		if t.granted == nil {
			t.queue.seats += t.seats
		}
	}
	l.demand.set(l.inUse+l.wanted, now)
}

func cost(seats int, d time.Duration) float64 { return float64(seats) * d.Seconds() }

// dispatch lets waiting requests run as long as seats are free.
func (l *Level) dispatch(now time.Time) {
	for l.waiting > 0 {
		at := l.poorest()
		q := l.queues[at]
		t := q.waiting[0]
		if !l.fits(t.seats) {
			return // others must not overtake it for ever
		}
		l.next = (at + 1) % len(l.queues)
		q.waiting[0] = nil
		q.waiting = q.waiting[1:]
		if len(q.waiting) == 0 {
			q.waiting = nil // the array behind it would grow for ever
		}
		l.waiting--
		l.wanted -= t.seats
		l.start(t, now)
		close(t.granted)
	}
}

// poorest returns which queue with requests has had the least service.
func (l *Level) poorest() int {
	best := -1
	n := len(l.queues)
	for i := range n {
		at := (l.next + i) % n
		if q := l.queues[at]; len(q.waiting) > 0 && (best < 0 || q.tag < l.queues[best].tag) {
			best = at
		}
	}
	return best
}

func (l *Level) wait(ctx context.Context, t *Ticket, since time.Time, limit time.Duration) (*Ticket, time.Duration, string) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	reason := ""
	select {
	case <-t.granted:
	case <-timer.C:
		reason = TimeOut
	case <-ctx.Done():
		reason = Cancelled
	}
	waited := time.Since(since)
	if reason == "" || !l.leave(t) {
		return t, waited, ""
	}
	return nil, waited, reason
}

// leave takes a request out of its queue; false says that it runs already.
func (l *Level) leave(t *Ticket) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.done {
		return false
	}
	now := time.Now()
	at := slices.Index(t.queue.waiting, t)
	t.queue.waiting = slices.Delete(t.queue.waiting, at, at+1)
	t.queue.seats -= t.seats
	l.waiting--
	l.wanted -= t.seats
	l.demand.set(l.inUse+l.wanted, now)
	l.dispatch(now) // a wide request at the head may have kept others back
	return true
}

// Release gives the seats back.
func (t *Ticket) Release() {
	l := t.level
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	l.inUse -= t.seats
	if q := t.queue; q != nil {
		q.seats -= t.seats
		q.tag += cost(t.seats, now.Sub(t.started)-guess)
	}
	l.demand.set(l.inUse+l.wanted, now)
	l.dispatch(now)
}

// State is a level at one moment.
type State struct {
	Limit, Running, InUse, Waiting, Wanted int
}

// State returns the level's present state, for metrics.
func (l *Level) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return State{Limit: l.limit, Running: l.running, InUse: l.inUse, Waiting: l.waiting, Wanted: l.wanted}
}

// TakeDemand returns the demand for seats since the last call.
func (l *Level) TakeDemand() Demand {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.demand.take(time.Now())
}
