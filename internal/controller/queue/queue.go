// SPDX-License-Identifier: Apache-2.0

// Package queue runs a controller's reconciliations: each key at most once at a
// time, again with growing delays while it fails. Controllers feed it from
// their informers' events; it knows nothing of what a key means.
//
// It has no ticker: an idle queue costs nothing.
package queue

import (
	"context"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kaji/internal/controller/meter"
)

// The delays of a failing key, doubled each time, as upstream's queues have them.
const (
	firstDelay = 5 * time.Millisecond
	lastDelay  = 1000 * time.Second
)

// Key names an object; Namespace is empty for cluster-scoped ones.
type Key struct{ Namespace, Name string }

// String returns namespace/name, or the name alone.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// Queue holds the keys that wait. Its methods are safe for concurrent use.
type Queue[K comparable] struct {
	name      string
	log       *slog.Logger
	reconcile func(context.Context, K) error
	// first and last are the delays of a key that failed in earnest.
	first, last time.Duration

	mu      sync.Mutex
	wake    sync.Cond
	waiting []K
	state   map[K]*state
	stopped bool
	metrics *meter.Queue // of the run; guarded by mu
}

// state is one key that waits, runs or has failed.
type state struct {
	queued, running, again bool
	failures               int
	timer                  *time.Timer
	due                    time.Time
	since                  time.Time // the key waits; without metrics zero
}

type workersKey struct{}

// WithWorkers returns a context in which queues run with other numbers of workers
// than their controllers ask for, by the queues' names.
func WithWorkers(ctx context.Context, workers map[string]int) context.Context {
	return context.WithValue(ctx, workersKey{}, workers)
}

// New returns a queue that calls reconcile for each key added. An error lets
// the key come again later; a conflict is an expected one and not logged. The
// name is the queue's in metrics.
func New[K comparable](name string, log *slog.Logger, reconcile func(context.Context, K) error) *Queue[K] {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	q := &Queue[K]{name: name, log: log, reconcile: reconcile, first: firstDelay, last: lastDelay, state: map[K]*state{}}
	q.wake.L = &q.mu
	return q
}

// Between sets the first and the last delay of a key that failed, but for
// conflicts, whose first delay stays short. It is called before Run and returns
// the queue.
func (q *Queue[K]) Between(first, last time.Duration) *Queue[K] {
	q.first, q.last = first, last
	return q
}

// Add asks for a reconciliation soon.
func (q *Queue[K]) Add(key K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(key)
}

func (q *Queue[K]) add(key K) {
	if q.stopped {
		return
	}
	s := q.state[key]
	if s == nil {
		s = &state{}
		q.state[key] = s
	}
	switch {
	case s.running:
		s.again = true
	case !s.queued:
		s.queued = true
		q.waiting = append(q.waiting, key)
		q.count(s)
		q.wake.Signal()
	}
}

// count counts a key that waits now.
func (q *Queue[K]) count(s *state) {
	if q.metrics != nil {
		s.since = time.Now()
		q.metrics.Added()
	}
}

// AddAfter asks for a reconciliation after a delay; of several delays of one
// key the shortest counts.
func (q *Queue[K]) AddAfter(key K, delay time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.addAfter(key, delay)
}

func (q *Queue[K]) addAfter(key K, delay time.Duration) {
	if delay <= 0 {
		q.add(key)
		return
	}
	if q.stopped {
		return
	}
	s := q.state[key]
	if s == nil {
		s = &state{}
		q.state[key] = s
	}
	due := time.Now().Add(delay)
	if s.timer != nil {
		if !due.Before(s.due) {
			return
		}
		s.timer.Stop()
	}
	s.due = due
	var timer *time.Timer
	timer = time.AfterFunc(delay, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if s.timer == timer {
			s.timer = nil
			q.add(key)
		}
	})
	s.timer = timer
}

// Run reconciles with so many workers until ctx ends. It counts in the meter
// that ctx carries.
func (q *Queue[K]) Run(ctx context.Context, workers int) {
	if other, _ := ctx.Value(workersKey{}).(map[string]int); other[q.name] > 0 {
		workers = other[q.name]
	}
	q.begin(meter.From(ctx).Queue(q.name))
	stop := context.AfterFunc(ctx, q.stop)
	defer stop()
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() { q.work(ctx, worker) })
	}
	group.Wait()
}

// begin counts what came before the run.
func (q *Queue[K]) begin(metrics *meter.Queue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.metrics = metrics
	for _, key := range q.waiting {
		q.count(q.state[key])
	}
}

func (q *Queue[K]) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	for _, s := range q.state {
		if s.timer != nil {
			s.timer.Stop()
		}
	}
	q.wake.Broadcast()
}

func (q *Queue[K]) work(ctx context.Context, worker int) {
	for {
		key, ok := q.next(worker)
		if !ok {
			return
		}
		err := q.reconcile(ctx, key)
		q.done(ctx, key, err, worker)
	}
}

func (q *Queue[K]) next(worker int) (key K, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.stopped {
		q.wake.Wait()
	}
	if q.stopped {
		return key, false
	}
	key = q.waiting[0]
	q.waiting = q.waiting[1:]
	if len(q.waiting) == 0 {
		q.waiting = nil // let go of the array
	}
	s := q.state[key]
	s.queued, s.running = false, true
	q.metrics.Began(worker, s.since)
	return key, true
}

func (q *Queue[K]) done(ctx context.Context, key K, err error, worker int) {
	if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) {
		q.log.Warn("reconciliation failed, it is tried again", "key", key, "err", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.state[key]
	s.running = false
	q.metrics.Ended(worker)
	if err == nil {
		s.failures = 0
	} else {
		q.metrics.Retried()
		first := q.first
		if apierrors.IsConflict(err) {
			first = firstDelay
		}
		delay := min(first<<min(s.failures, 20), q.last)
		s.failures++
		q.addAfter(key, delay)
	}
	if s.again {
		s.again = false
		q.add(key)
	}
	if !s.queued && s.timer == nil && s.failures == 0 {
		delete(q.state, key)
	}
}
