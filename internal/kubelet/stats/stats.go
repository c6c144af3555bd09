// SPDX-License-Identifier: Apache-2.0

// Package stats tells what the node, its pods and their containers use: as the
// summary API, and as metrics for Prometheus under the names that cAdvisor and
// upstream's kubelet gave them. Everything is read when it is asked for; what
// is asked for often is kept for a moment. Nothing runs in between.
package stats

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/cri"
	"kaji/internal/kubelet/cgroup"
	"kaji/internal/kubelet/node"
)

// Config is what a Reader needs.
type Config struct {
	NodeName string
	Runtime  cri.Runtime
	Images   cri.Images
	// Metrics are those that the runtime makes itself; nil where it makes none.
	Metrics cri.Metrics
	// Group is the control group of a container; nil names it by its id alone.
	Group func(pod *corev1.Pod, id string) string
	// System are the groups besides single pods that are told of, by the names that
	// the summary API has for them ("pods", "kubelet"); nil means none.
	System func() map[string]cgroup.Use
	// RootDir is on the file system of the node's ephemeral storage.
	RootDir string
	// LogDir is that of pods' logs.
	LogDir  string
	Machine node.Machine
	// Pods are those with a worker.
	Pods func() []*corev1.Pod
	// Volume is the path of a pod's volume, "" where it is not mounted.
	Volume func(pod *corev1.Pod, name string) string
	Logger *slog.Logger
	// Keep is how long a reading is good for; zero means 1 s.
	Keep time.Duration
	// DiskKeep is how long the size of a directory is good for; zero means a minute, a
	// negative time leaves directories unmeasured.
	DiskKeep time.Duration
	// Started is when the agent started.
	Started time.Time
}

// Reader reads statistics. Its methods are safe for concurrent use.
type Reader struct {
	cfg Config
	mu  sync.Mutex // guards the rest; held while reading, so that readers share

	at         time.Time
	sandboxes  []*runtimeapi.PodSandboxStats
	containers []*runtimeapi.ContainerStats
	usage      map[string]diskUse // by path
	rates      map[string]rate
}

// rate remembers a counter, to tell its speed at the next reading.
type rate struct {
	at, value, perSecond uint64
}

type diskUse struct {
	at            time.Time
	bytes, inodes uint64
}

// New returns a Reader.
func New(cfg Config) *Reader {
	if cfg.Keep == 0 {
		cfg.Keep = time.Second
	}
	if cfg.Started.IsZero() {
		cfg.Started = time.Now()
	}
	return &Reader{cfg: cfg, usage: map[string]diskUse{}, rates: map[string]rate{}}
}

// reading is what the runtime said at one moment.
type reading struct {
	at         time.Time
	sandboxes  []*runtimeapi.PodSandboxStats
	containers []*runtimeapi.ContainerStats
}

func (r *Reader) read(ctx context.Context) (reading, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.at) > r.cfg.Keep {
		containers, err := r.cfg.Runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
		if err != nil {
			return reading{}, fmt.Errorf("failed to list all container stats: %w", err)
		}
		sandboxes, err := r.cfg.Runtime.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
		if err != nil {
			// A runtime may have them of containers only.
			sandboxes = &runtimeapi.ListPodSandboxStatsResponse{}
		}
		r.at, r.sandboxes, r.containers = time.Now(), sandboxes.Stats, containers.Stats
	}
	return reading{r.at, r.sandboxes, r.containers}, nil
}

// speed is a counter's growth per second between two readings.
func (r *Reader) speed(key string, at int64, value uint64) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.rates[key]
	now := uint64(at)
	if ok && now == last.at {
		return last.perSecond
	}
	next := rate{at: now, value: value}
	if ok && now > last.at && value >= last.value {
		next.perSecond = uint64(float64(value-last.value) / (float64(now-last.at) / 1e9))
	}
	if len(r.rates) > 8192 {
		r.rates = map[string]rate{} // long gone containers; speeds come again with the next reading
	}
	r.rates[key] = next
	return next.perSecond
}
