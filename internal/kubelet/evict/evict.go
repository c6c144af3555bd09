// SPDX-License-Identifier: Apache-2.0

// Package evict watches what the node has left of memory, disk and processes,
// and ends pods when it is too little: those that exceed their requests first,
// the least important before the others. Decisions (rank.go, threshold.go) are
// pure; Manager carries them out.
package evict

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	podresource "k8s.io/component-helpers/resource"

	"kaji/internal/kubelet/podspec"
)

// Config is what a Manager needs.
type Config struct {
	Thresholds []Threshold
	// Observe reads the node.
	Observe func(ctx context.Context) (Observation, error)
	// Pods are those that run; Use is what one of them takes.
	Pods func() []*corev1.Pod
	Use  func(ctx context.Context) (map[*corev1.Pod]Use, error)
	// Evict ends a pod; grace is nil for the pod's own.
	Evict func(pod *corev1.Pod, message string, grace time.Duration, signal Signal, annotations map[string]string)
	// Met is told of each threshold that pods may be ended for; nil tells nobody.
	Met func(Signal)
	// Aged is told how old an observation is that a pod is about to be ended for; nil
	// tells nobody.
	Aged func(signal Signal, age time.Duration)
	// Reclaim frees disk without ending pods: dead containers, unused images.
	Reclaim func(ctx context.Context, signal Signal)
	// Changed is told that pressure began or ended.
	Changed func()
	Logger  *slog.Logger
	// Interval between looks; zero means 10 s.
	Interval time.Duration
	// Transition is how long pressure is shown after it ended; zero means 5 min.
	Transition time.Duration
	// MaxGrace bounds the grace of pods at soft thresholds.
	MaxGrace time.Duration
	// NoLimits leaves limits of a pod's own unenforced: of scratch volumes and of
	// ephemeral storage.
	NoLimits bool
}

// Manager watches the node.
type Manager struct {
	cfg Config
	mu  struct {
		sync.Mutex
		// met is since when each threshold is met; seen is when a condition was
		// last met.
		met  map[int]time.Time
		seen map[corev1.NodeConditionType]time.Time
		held map[corev1.NodeConditionType]bool
	}
}

// New returns a Manager.
func New(cfg Config) *Manager {
	if cfg.Interval == 0 {
		cfg.Interval = 10 * time.Second
	}
	if cfg.Transition == 0 {
		cfg.Transition = 5 * time.Minute
	}
	m := &Manager{cfg: cfg}
	m.mu.met = map[int]time.Time{}
	m.mu.seen = map[corev1.NodeConditionType]time.Time{}
	m.mu.held = map[corev1.NodeConditionType]bool{}
	return m
}

// Run watches until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	ticker := time.NewTicker(m.cfg.Interval)
	defer ticker.Stop()
	for {
		if err := m.look(ctx); err != nil && ctx.Err() == nil {
			m.cfg.Logger.Warn("what the node has left is not known", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Pressure are the conditions that hold.
func (m *Manager) Pressure() map[corev1.NodeConditionType]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.mu.held)
}

// look compares the node with the thresholds and evicts at most one pod.
func (m *Manager) look(ctx context.Context) error {
	at := time.Now()
	seen, err := m.cfg.Observe(ctx)
	if err != nil {
		return err
	}
	due, changed := m.note(seen, time.Now())
	if changed {
		m.cfg.Changed()
	}
	if len(due) == 0 {
		return m.limits(ctx)
	}
	if m.cfg.Met != nil {
		m.cfg.Met(due[0].Signal)
	}
	if m.cfg.Reclaim != nil {
		for _, t := range due {
			if !t.Signal.Memory() && t.Signal != PIDAvailable {
				m.cfg.Reclaim(ctx, t.Signal)
			}
		}
		at = time.Now()
		if seen, err = m.cfg.Observe(ctx); err != nil {
			return err
		}
		due = slices.DeleteFunc(due, func(t Threshold) bool { return !t.Met(seen) })
		if len(due) == 0 {
			return nil
		}
	}
	return m.evictOne(ctx, due[0], seen, at)
}

// note keeps the times of thresholds and returns those that ask for action,
// memory first, and whether a condition changed.
func (m *Manager) note(seen Observation, now time.Time) (due []Threshold, changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, t := range m.cfg.Thresholds {
		if !m.mu.met[i].IsZero() { // what was too little has to become more than that
			t.Reclaimed = true
		}
		if !t.Met(seen) {
			delete(m.mu.met, i)
			continue
		}
		if m.mu.met[i].IsZero() {
			m.mu.met[i] = now
		}
		m.mu.seen[t.Signal.Condition()] = now
		if now.Sub(m.mu.met[i]) >= t.Grace {
			due = append(due, t)
		}
	}
	slices.SortStableFunc(due, func(a, b Threshold) int { return a.Signal.order() - b.Signal.order() })
	for _, c := range []corev1.NodeConditionType{corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		last, ever := m.mu.seen[c]
		holds := ever && now.Sub(last) < m.cfg.Transition
		changed = changed || holds != m.mu.held[c]
		m.mu.held[c] = holds
	}
	return due, changed
}

func (m *Manager) evictOne(ctx context.Context, t Threshold, seen Observation, at time.Time) error {
	use, err := m.cfg.Use(ctx)
	if err != nil {
		return err
	}
	pods := slices.DeleteFunc(m.cfg.Pods(), podspec.Critical)
	if len(pods) == 0 {
		m.cfg.Logger.Warn("there is no pod to evict", "signal", t.Signal)
		return nil
	}
	Rank(pods, use, t.Signal)
	victim := pods[0]
	grace := time.Duration(0)
	if t.Grace > 0 {
		grace = min(m.cfg.MaxGrace, podspec.Grace(victim))
	}
	if m.cfg.Aged != nil {
		m.cfg.Aged(t.Signal, time.Since(at))
	}
	m.cfg.Evict(victim, Message(victim, use[victim], t, seen), grace, t.Signal, map[string]string{"starved_resource": string(t.Signal.Resource())})
	return nil
}

// limits evicts pods that exceed limits of their own: of scratch volumes and
// of ephemeral storage.
func (m *Manager) limits(ctx context.Context) error {
	if m.cfg.NoLimits {
		return nil
	}
	pods := slices.DeleteFunc(m.cfg.Pods(), func(p *corev1.Pod) bool { return !limited(p) })
	if len(pods) == 0 {
		return nil
	}
	use, err := m.cfg.Use(ctx)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		if message, signal := exceeded(pod, use[pod]); message != "" {
			m.cfg.Evict(pod, message, minGrace, signal, nil)
		}
	}
	return nil
}

// minGrace is what pods get that exceed limits of their own.
const minGrace = time.Second

// limited says whether a pod has limits that only the agent can enforce.
func limited(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if e := pod.Spec.Volumes[i].EmptyDir; e != nil && e.SizeLimit != nil && e.SizeLimit.Sign() > 0 && e.Medium != corev1.StorageMediumMemory {
			return true
		}
	}
	for _, c := range podspec.Containers(pod) {
		if _, ok := c.Resources.Limits[corev1.ResourceEphemeralStorage]; ok {
			return true
		}
	}
	return false
}

// Signals of limits that are a pod's own, as metrics name them.
const (
	EmptyDirLimit  Signal = "emptydirfs.limit"
	PodLimit       Signal = "ephemeralpodfs.limit"
	ContainerLimit Signal = "ephemeralcontainerfs.limit"
)

// Own says whether a signal is of a pod's own limits, and not of the node's need.
func (s Signal) Own() bool { return s == EmptyDirLimit || s == PodLimit || s == ContainerLimit }

// exceeded says which of its own limits a pod exceeds, "" for none.
func exceeded(pod *corev1.Pod, use Use) (string, Signal) {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if e := v.EmptyDir; e != nil && e.SizeLimit != nil && e.SizeLimit.Sign() > 0 {
			if int64(use.Volumes[v.Name]) > e.SizeLimit.Value() {
				return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, e.SizeLimit.String()), EmptyDirLimit
			}
		}
	}
	limits := podresource.PodLimits(pod, podresource.PodResourcesOptions{})
	if limit, ok := limits[corev1.ResourceEphemeralStorage]; ok && int64(use.Disk) > limit.Value() {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", limit.String()), PodLimit
	}
	for _, c := range podspec.Containers(pod) {
		limit := c.Resources.Limits[corev1.ResourceEphemeralStorage]
		if !limit.IsZero() && int64(use.Containers[c.Name]) > limit.Value() {
			return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", c.Name, limit.String()), ContainerLimit
		}
	}
	return "", ""
}
