// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"

	"kaji/internal/cri"
)

// Watcher notices that something of a pod changed in the runtime. Events of the
// runtime tell at once; a listing now and then finds what events missed. A
// runtime without events is listed every second.
type Watcher struct {
	Runtime cri.Runtime
	Logger  *slog.Logger
	// Changed is told of pods of which something changed.
	Changed func(types.UID)
	// Listed is told how each listing went; nil for nobody.
	Listed func(error)
	// Took is told how long each listing took; nil for nobody.
	Took func(time.Duration)
	// Streams is told how it went when events were asked for; nil for nobody.
	Streams func(error)
	// Slow and Fast are the intervals of listings with and without events;
	// zero means 60 s and 1 s.
	Slow, Fast time.Duration
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	slow, fast := w.Slow, w.Fast
	if slow == 0 {
		slow = time.Minute
	}
	if fast == 0 {
		fast = time.Second
	}
	var last map[string]string
	var events <-chan *runtimeapi.ContainerEventResponse
	var again time.Time // events are not asked for before: the runtime has none
	for ctx.Err() == nil {
		asked := time.Now()
		if events == nil && !asked.Before(again) {
			var err error
			events, err = w.Runtime.Events(ctx)
			if w.Streams != nil && ctx.Err() == nil {
				w.Streams(err)
			}
			if err != nil {
				w.Logger.Debug("the runtime has no events, listing instead", "err", err)
				events, again = nil, asked.Add(slow)
			}
		}
		seen, err := w.list(ctx)
		if w.Took != nil {
			w.Took(time.Since(asked))
		}
		if w.Listed != nil && ctx.Err() == nil {
			w.Listed(err)
		}
		if err == nil {
			w.compare(last, seen)
			last = seen
		}
		interval := slow
		if events == nil || err != nil {
			interval = fast
		}
		had := events != nil
		events = w.follow(ctx, events, interval)
		if had && events == nil && time.Since(asked) < fast { // a stream that ends at once is none
			again = asked.Add(slow)
			w.follow(ctx, nil, fast)
		}
	}
	return nil
}

// follow passes events on for an interval; it returns nil when they end.
func (w *Watcher) follow(ctx context.Context, events <-chan *runtimeapi.ContainerEventResponse, d time.Duration) <-chan *runtimeapi.ContainerEventResponse {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return events
		case <-timer.C:
			return events
		case e, ok := <-events:
			if !ok {
				return nil
			}
			uid := types.UID(e.GetPodSandboxStatus().GetMetadata().GetUid())
			if uid == "" {
				return events // no telling which pod: list
			}
			w.Changed(uid)
		}
	}
}

// list returns the state of every sandbox and container: id to "uid state".
func (w *Watcher) list(ctx context.Context) (map[string]string, error) {
	sandboxes, err := w.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	containers, err := w.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	seen := make(map[string]string, len(sandboxes.Items)+len(containers.Containers))
	for _, s := range sandboxes.Items {
		seen[s.Id] = s.Labels[kubelettypes.KubernetesPodUIDLabel] + " " + s.State.String()
	}
	for _, c := range containers.Containers {
		seen[c.Id] = c.Labels[kubelettypes.KubernetesPodUIDLabel] + " " + c.State.String()
	}
	return seen, nil
}

func (w *Watcher) compare(last, seen map[string]string) {
	changed := map[types.UID]bool{}
	note := func(state string) {
		for i := range state {
			if state[i] == ' ' {
				changed[types.UID(state[:i])] = true
				return
			}
		}
	}
	for id, state := range seen {
		if last[id] != state {
			note(state)
		}
	}
	for id, state := range last {
		if _, ok := seen[id]; !ok {
			note(state)
		}
	}
	for uid := range changed {
		if uid != "" {
			w.Changed(uid)
		}
	}
}
