// SPDX-License-Identifier: Apache-2.0

// Package scheduler places pods on nodes as kube-scheduler does: same plugins,
// same configuration, same messages. The application makes one with New and
// runs it with Run; it speaks to nothing but the API, through client.
//
// One goroutine, the loop, owns the snapshot of the cluster and the queue of
// pods. Informers and finished API calls post functions to it, so decisions
// see one consistent state and take no locks. What may block (binding,
// evicting, writing conditions and events) runs beside the loop.
package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/scheduler/config"
	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/plugin/dynamicresources"
	"kaji/internal/scheduler/plugin/volumebinding"
	"kaji/internal/scheduler/podgroup"
	"kaji/internal/scheduler/queue"
	"kaji/internal/scheduler/snapshot"
)

// Config is what a scheduler needs; everything but Client has a default.
type Config struct {
	Client client.Interface
	// Configuration has its defaults and is valid, as config.Load returns it;
	// nil means config.Default.
	Configuration *configv1.KubeSchedulerConfiguration
	Logger        *slog.Logger
	// Hostname names this instance in events and in the leader's lease.
	Hostname string
	// Seed makes decisions among equal nodes repeatable; zero takes one at random.
	Seed uint64
	// MaxUnschedulable is after what time a pod is retried without any event;
	// zero means 5 minutes.
	MaxUnschedulable time.Duration
	// PodGroups turns groups of pods on: the feature gate GenericWorkload.
	PodGroups bool
	// Metrics is where the scheduler's metrics are registered; nil is a registry
	// of its own.
	Metrics *prometheus.Registry
	// Served is what Handler serves of them; all when nil.
	Served prometheus.Gatherer
}

// Scheduler is created by New.
type Scheduler struct {
	cfg      *configv1.KubeSchedulerConfiguration
	client   client.Interface
	log      *slog.Logger
	identity string

	snap     *snapshot.Snapshot
	queue    *queue.Queue
	groups   *podgroup.Groups // nil when there are none
	profiles map[string]*profile
	choosers map[string]*chooser
	waiting  waiting
	metrics  *metrics
	served   prometheus.Gatherer
	recorder *recorder
	patches  patches
	binders  binders
	feed     *feed

	inbox   *inbox
	workers sync.WaitGroup
	ctx     context.Context // of Run, for what runs beside the loop
	ready   chan struct{}   // closed when the informers have synced
}

// New makes a scheduler. The error says what is wrong with its configuration.
func New(cfg Config) (*Scheduler, error) {
	if cfg.Configuration == nil {
		cfg.Configuration = config.Default()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Hostname == "" {
		cfg.Hostname, _ = os.Hostname()
	}
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	s := &Scheduler{
		cfg: cfg.Configuration, client: cfg.Client, log: cfg.Logger, identity: cfg.Hostname,
		snap: snapshot.New(), profiles: map[string]*profile{}, choosers: map[string]*chooser{},
		metrics: newMetrics(cfg.Metrics), recorder: newRecorder(cfg.Client, cfg.Hostname, cfg.Logger),
		inbox: newInbox(), ready: make(chan struct{}),
	}
	if s.served = cfg.Served; s.served == nil {
		s.served = s.metrics.registry
	}
	s.patches.waiting = map[podUID]map[string]any{}
	s.waiting.pods = map[podUID]*waitingPod{}
	s.feed = newFeed(s)
	if cfg.PodGroups {
		s.groups = podgroup.New()
	}
	extenders, err := newExtenders(s.cfg.Extenders, s.log)
	if err != nil {
		return nil, err
	}
	deps := &dependencies{client: tracked{cfg.Client, s.feed}, snap: s.snap, log: cfg.Logger, ignored: ignoredResources(s.cfg.Extenders), groups: s.groups, devices: dynamicresources.NewPromises(), volumes: volumebinding.NewPromises()}
	hints := map[queue.Rejector][]plugin.EventHint{}
	profiles := config.Profiles(s.cfg)
	if cfg.PodGroups {
		config.EnableGroups(profiles)
	}
	for i := range profiles {
		p, err := newProfile(&profiles[i], deps, &handle{s, profiles[i].Name})
		if err != nil {
			return nil, err
		}
		p.extenders = extenders
		p.metrics = s.metrics.forProfile(p.name)
		s.metrics.evaluated(p)
		s.profiles[p.name] = p
		s.choosers[p.name] = &chooser{profile: p, snap: s.snap, rand: rand.New(rand.NewPCG(cfg.Seed, uint64(i)))}
		for r, h := range p.hints {
			hints[r] = h
		}
	}
	s.feed.watch(hints)
	s.queue = queue.New(queue.Config{
		InitialBackoff:   time.Duration(ptr.Deref(s.cfg.PodInitialBackoffSeconds, 1)) * time.Second,
		MaxBackoff:       time.Duration(ptr.Deref(s.cfg.PodMaxBackoffSeconds, 10)) * time.Second,
		MaxUnschedulable: cfg.MaxUnschedulable,
		Hints:            hints,
		PreEnqueue: func(pod *corev1.Pod) *plugin.Status {
			return s.profiles[pod.Spec.SchedulerName].mayEnqueue(pod)
		},
		GroupOf: s.groupOf(),
		Hinted:  s.metrics.hinted,
		Incoming: func(queue, event string, pods int, group bool) {
			kind := "pod"
			if group {
				kind = "podgroup"
			}
			s.metrics.incomingPods.WithLabelValues(queue, event).Add(float64(pods))
			s.metrics.incomingEntities.WithLabelValues(queue, event, kind).Inc()
		},
	})
	return s, nil
}

// groupOf tells the queue which pods are placed together, nil when none are.
func (s *Scheduler) groupOf() func(*corev1.Pod) (podgroup.Key, bool) {
	if s.groups == nil {
		return nil
	}
	return podgroup.KeyOf
}

// Run schedules until ctx ends, or until the leadership is lost, which is an
// error. It returns when everything it started has ended.
func (s *Scheduler) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.workers.Wait()
	defer cancel()
	s.ctx = ctx
	s.client.Start(ctx)
	s.recorder.start(ctx, s.workers.Go)
	if !ptr.Deref(s.cfg.LeaderElection.LeaderElect, false) {
		return s.schedule(ctx)
	}
	return s.lead(ctx, s.schedule)
}

// schedule waits for the informers and then is the loop.
func (s *Scheduler) schedule(ctx context.Context) error {
	if !s.feed.sync(ctx) {
		return nil
	}
	close(s.ready)
	s.log.Info("scheduler started", "profiles", len(s.profiles))
	flush := time.NewTicker(30 * time.Second)
	defer flush.Stop()
	for {
		s.inbox.drain()
		if ctx.Err() != nil {
			return nil
		}
		if it := s.queue.Pop(time.Now()); it != nil {
			s.attempt(ctx, it)
			continue
		}
		var alarm <-chan time.Time
		if t, ok := s.queue.Next(); ok {
			alarm = time.After(time.Until(t))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.inbox.wake:
		case <-alarm:
		case <-flush.C:
			s.queue.Flush(time.Now())
		}
	}
}

// attempt tries to place one pod, or a group.
func (s *Scheduler) attempt(ctx context.Context, it *queue.Item) {
	if it.Group != nil {
		s.attemptGroup(ctx, it)
		return
	}
	if s.needsNone(it) {
		s.queue.Done(it)
		return
	}
	ch := s.choosers[it.Pod.Object.Spec.SchedulerName]
	began := time.Now()
	c := &plugin.Cycle{Pod: it.Pod, Snapshot: s.snap}
	for _, e := range ch.profile.extenders {
		c.Extenders = append(c.Extenders, e)
	}
	where, err := ch.choose(ctx, c)
	s.metrics.algorithmDuration.Observe(time.Since(began).Seconds())
	if err == nil {
		err = s.place(c, it, ch.profile, where, began)
	}
	if err != nil {
		s.fail(ctx, c, it, ch.profile, err, began)
	}
}

// needsNone says whether a pod needs no attempt: it is being deleted, or is on
// its way to a node.
func (s *Scheduler) needsNone(it *queue.Item) bool {
	pod := it.Pod.Object
	if pod.DeletionTimestamp != nil {
		s.recorder.event(pod.Spec.SchedulerName, pod, nil, corev1.EventTypeWarning, "FailedScheduling", "Scheduling",
			fmt.Sprintf("skip schedule deleting pod: %s/%s", pod.Namespace, pod.Name))
		return true
	}
	return s.snap.Pod(pod.UID) != nil
}

// inbox carries functions to the loop.
type inbox struct {
	wake chan struct{} // holds one token while something waits
	mu   struct {
		sync.Mutex
		funcs []func()
	}
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

// post hands f to the loop; it never blocks.
func (b *inbox) post(f func()) {
	b.mu.Lock()
	b.mu.funcs = append(b.mu.funcs, f)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// drain runs what was posted.
func (b *inbox) drain() {
	b.mu.Lock()
	funcs := b.mu.funcs
	b.mu.funcs = nil
	b.mu.Unlock()
	for _, f := range funcs {
		f()
	}
}
