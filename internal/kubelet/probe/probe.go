// SPDX-License-Identifier: Apache-2.0

// Package probe asks running containers how they are. One timer serves all
// probes of the node; a probe that is due runs in a goroutine of its own for
// as long as it takes. Verdicts change by the thresholds of the specification,
// and each change wakes the pod's worker.
package probe

import (
	"container/heap"
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"kaji/internal/cri"
	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/podrun"
	"kaji/internal/kubelet/podspec"
)

// Kind is what a probe decides.
type Kind string

// The kinds of probes, as events name them.
const (
	Startup   Kind = "Startup"
	Liveness  Kind = "Liveness"
	Readiness Kind = "Readiness"
)

// Config is what a Manager needs.
type Config struct {
	Runtime  cri.Runtime
	Recorder record.EventRecorder
	Logger   *slog.Logger
	// Changed is told of pods of which a verdict changed.
	Changed func(types.UID)
	// Counted is told of every run, for metrics; nil for none.
	Counted func(pod *corev1.Pod, container string, kind Kind, result string, took time.Duration)
}

// Manager runs probes. Its methods may be called from anywhere.
type Manager struct {
	cfg  Config
	wake chan struct{}
	runs sync.WaitGroup
	mu   struct {
		sync.Mutex
		probes map[key]*probe
		queue  queue
		pods   map[types.UID][]key
		failed map[string]Kind // container id -> what wants it restarted
	}
}

type key struct {
	uid       types.UID
	container string
	kind      Kind
}

// probe is one probe of one container; guarded by the manager's lock.
type probe struct {
	key       key
	pod       *corev1.Pod
	spec      *corev1.Probe
	container *corev1.Container
	// id is that of the running container, "" while there is none.
	id      string
	address string
	due     time.Time
	index   int // in the queue, -1 when not in it
	running bool
	// ok is the verdict, last and count the current row of equal results.
	ok, last bool
	count    int32
}

// New returns a manager; nothing is probed before Run.
func New(cfg Config) *Manager {
	m := &Manager{cfg: cfg, wake: make(chan struct{}, 1)}
	m.mu.probes = map[key]*probe{}
	m.mu.pods = map[types.UID][]key{}
	m.mu.failed = map[string]Kind{}
	return m
}

// Run probes until ctx ends, and waits for probes in progress.
func (m *Manager) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	defer m.runs.Wait()
	for {
		next := m.start(ctx)
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(time.Until(next), 0))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-m.wake:
		}
	}
}

// start begins all probes that are due and returns when the next one is.
func (m *Manager) start(ctx context.Context) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for m.mu.queue.Len() > 0 {
		p := m.mu.queue[0]
		if p.due.After(now) {
			return p.due
		}
		heap.Pop(&m.mu.queue)
		if p.running || p.id == "" {
			continue
		}
		p.running = true
		attempt := *p
		m.runs.Go(func() { m.run(ctx, p, attempt) })
	}
	return time.Time{}
}

// Update tells what of a pod runs now.
func (m *Manager) Update(pod *corev1.Pod, a *actual.Pod) {
	if !hasProbes(pod) {
		return
	}
	address := ""
	if ips := a.IPs(); len(ips) > 0 {
		address = ips[0]
	}
	if pod.Spec.HostNetwork {
		address = "127.0.0.1"
		if pod.Status.HostIP != "" {
			address = pod.Status.HostIP
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range podspec.Containers(pod) {
		seen := a.Container(c.Name)
		for kind, spec := range map[Kind]*corev1.Probe{Startup: c.StartupProbe, Liveness: c.LivenessProbe, Readiness: c.ReadinessProbe} {
			if spec != nil {
				m.track(key{pod.UID, c.Name, kind}, pod, c, spec, seen, address)
			}
		}
	}
	m.rouse()
}

func hasProbes(pod *corev1.Pod) bool {
	for _, c := range podspec.Containers(pod) {
		if c.StartupProbe != nil || c.LivenessProbe != nil || c.ReadinessProbe != nil {
			return true
		}
	}
	return false
}

func (m *Manager) track(k key, pod *corev1.Pod, c *corev1.Container, spec *corev1.Probe, seen *actual.Container, address string) {
	p := m.mu.probes[k]
	if p == nil {
		p = &probe{key: k, index: -1}
		m.mu.probes[k] = p
		m.mu.pods[k.uid] = append(m.mu.pods[k.uid], k)
	}
	p.pod, p.container, p.spec, p.address = pod, c, spec, address
	if !seen.Running() || pod.DeletionTimestamp != nil && k.kind != Readiness {
		delete(m.mu.failed, p.id)
		m.stop(p)
		return
	}
	if p.id != seen.ID {
		delete(m.mu.failed, p.id)
		p.id, p.ok, p.count = seen.ID, k.kind == Liveness, 0
		p.due = seen.StartedAt
		if now := time.Now(); p.due.After(now) { // the clock was put back
			p.due = now
		}
		p.due = p.due.Add(time.Duration(spec.InitialDelaySeconds) * time.Second)
		m.schedule(p)
		return
	}
	if p.index < 0 && !p.running && m.wanted(p) {
		m.schedule(p)
	}
}

// wanted says whether a probe has anything left to find out.
func (m *Manager) wanted(p *probe) bool {
	if m.mu.failed[p.id] != "" && p.key.kind != Readiness {
		return false // the container is on its way out
	}
	if p.key.kind == Startup {
		return !p.ok
	}
	return m.started(p.key.uid, p.key.container, p.id)
}

// schedule queues a probe that is wanted; one that waits for the startup probe
// is queued when that succeeds.
func (m *Manager) schedule(p *probe) {
	if !m.wanted(p) {
		return
	}
	if p.index >= 0 {
		heap.Fix(&m.mu.queue, p.index)
		return
	}
	heap.Push(&m.mu.queue, p)
}

func (m *Manager) stop(p *probe) {
	p.id = ""
	if p.index >= 0 {
		heap.Remove(&m.mu.queue, p.index)
	}
}

// Remove forgets a pod.
func (m *Manager) Remove(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.mu.pods[uid] {
		p := m.mu.probes[k]
		delete(m.mu.failed, p.id)
		m.stop(p)
		delete(m.mu.probes, k)
	}
	delete(m.mu.pods, uid)
}

func (m *Manager) rouse() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *Manager) started(uid types.UID, container, id string) bool {
	p := m.mu.probes[key{uid, container, Startup}]
	return p == nil || p.id == id && p.ok
}

// Started implements status.Health.
func (m *Manager) Started(pod *corev1.Pod, container, id string) bool {
	if c := podspec.Container(pod, container); c == nil || c.StartupProbe == nil {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.mu.probes[key{pod.UID, container, Startup}]
	return p != nil && p.id == id && p.ok
}

// Ready implements status.Health.
func (m *Manager) Ready(pod *corev1.Pod, container, id string) bool {
	if c := podspec.Container(pod, container); c == nil || c.ReadinessProbe == nil {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.mu.probes[key{pod.UID, container, Readiness}]
	return p != nil && p.id == id && p.ok
}

// Failed implements podrun.Probes.
func (m *Manager) Failed(id string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.mu.failed[id])
}

var _ podrun.Probes = (*Manager)(nil)

// run carries one probe out and draws the conclusions.
func (m *Manager) run(ctx context.Context, p *probe, attempt probe) {
	begun := time.Now()
	var result Result
	var output string
	var err error
	for range 3 { // a probe that could not be carried out is tried again
		if result, output, err = m.ask(ctx, &attempt); err == nil || ctx.Err() != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return
	}
	ok := result != Failure
	m.report(&attempt, result, output, err, time.Since(begun))
	m.mu.Lock()
	changed := false
	if err != nil { // which says nothing of the container
		m.again(p, begun)
	} else {
		changed = m.judge(p, &attempt, ok, begun)
	}
	m.mu.Unlock()
	m.rouse()
	if changed {
		m.cfg.Changed(attempt.key.uid)
	}
}

// again schedules the next run after one without a result; the lock is held.
func (m *Manager) again(p *probe, begun time.Time) {
	p.running = false
	if m.mu.probes[p.key] == p && p.id != "" {
		p.due = begun.Add(period(p.spec))
		m.schedule(p)
	}
}

// judge notes a result and schedules the next run; the lock is held.
func (m *Manager) judge(p *probe, attempt *probe, ok bool, begun time.Time) (changed bool) {
	p.running = false
	if m.mu.probes[p.key] != p || p.id == "" {
		return false
	}
	if p.id != attempt.id { // another container runs by now
		m.schedule(p)
		return false
	}
	if p.count > 0 && p.last == ok {
		p.count++
	} else {
		p.last, p.count = ok, 1
	}
	threshold := max(p.spec.SuccessThreshold, 1)
	if !ok {
		threshold = max(p.spec.FailureThreshold, 1)
	}
	if p.count >= threshold {
		changed = p.ok != ok
		p.ok = ok
		if !ok && p.key.kind != Readiness {
			m.mu.failed[p.id] = p.key.kind
			p.count, changed = 0, true
		}
		if ok && p.key.kind == Startup {
			m.release(p)
		}
	}
	p.due = begun.Add(period(p.spec))
	m.schedule(p)
	return changed
}

// release lets the other probes of a container begin: it has started.
func (m *Manager) release(startup *probe) {
	for _, kind := range []Kind{Liveness, Readiness} {
		if p := m.mu.probes[key{startup.key.uid, startup.key.container, kind}]; p != nil && p.id == startup.id && !p.running {
			if now := time.Now(); p.due.Before(now) {
				p.due = now
			}
			m.schedule(p)
		}
	}
}

func period(spec *corev1.Probe) time.Duration {
	return time.Duration(max(spec.PeriodSeconds, 1)) * time.Second
}

// report tells of a run that did not succeed.
func (m *Manager) report(p *probe, result Result, output string, err error, took time.Duration) {
	ref := podrun.Reference(p.pod)
	ref.FieldPath = podrun.FieldPath(p.pod, p.key.container)
	verdict := "successful"
	switch {
	case err != nil:
		verdict = "unknown"
		m.cfg.Recorder.Eventf(ref, corev1.EventTypeWarning, "Unhealthy", "%s probe errored and resulted in %s state: %s", p.key.kind, "unknown", err)
	case result == Failure:
		verdict = "failed"
		m.cfg.Recorder.Eventf(ref, corev1.EventTypeWarning, "Unhealthy", "%s probe failed: %s", p.key.kind, output)
	case result == Warning:
		m.cfg.Recorder.Eventf(ref, corev1.EventTypeWarning, "ProbeWarning", "%s probe warning: %s", p.key.kind, output)
	}
	if m.cfg.Counted != nil {
		m.cfg.Counted(p.pod, p.key.container, p.key.kind, verdict, took)
	}
}

// queue is a heap of probes by the time they are due.
type queue []*probe

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	p := x.(*probe)
	p.index = len(*q)
	*q = append(*q, p)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	old := *q
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	p.index = -1
	return p
}
