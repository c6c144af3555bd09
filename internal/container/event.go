// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// eventBuffer is how far a listener may lag. One that lags more loses events
// and must list again, as the kubelet does at intervals anyway.
const eventBuffer = 1000

// hub hands events to all listeners.
type hub struct {
	mu        sync.Mutex
	closed    bool
	listeners map[chan *runtimeapi.ContainerEventResponse]struct{}
}

func (h *hub) listen() chan *runtimeapi.ContainerEventResponse {
	ch := make(chan *runtimeapi.ContainerEventResponse, eventBuffer)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(ch)
		return ch
	}
	if h.listeners == nil {
		h.listeners = map[chan *runtimeapi.ContainerEventResponse]struct{}{}
	}
	h.listeners[ch] = struct{}{}
	return ch
}

func (h *hub) leave(ch chan *runtimeapi.ContainerEventResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.listeners[ch]; ok {
		delete(h.listeners, ch)
		close(ch)
	}
}

func (h *hub) heard() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.listeners) > 0
}

func (h *hub) send(e *runtimeapi.ContainerEventResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ch := range h.listeners {
		select {
		case ch <- e:
		default:
		}
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for ch := range h.listeners {
		close(ch)
	}
	h.listeners = nil
}

// Events delivers life-cycle events until ctx ends or the runtime closes.
func (r *Runtime) Events(ctx context.Context) (<-chan *runtimeapi.ContainerEventResponse, error) {
	ch := r.events.listen()
	context.AfterFunc(ctx, func() { r.events.leave(ch) })
	return ch, nil
}

func (r *Runtime) emitSandbox(s *sandbox, kind runtimeapi.ContainerEventType) {
	r.emit(s, s.record.Load().ID, kind)
}

func (r *Runtime) emitContainer(c *container, kind runtimeapi.ContainerEventType) {
	r.emit(c.sandbox, c.record.Load().ID, kind)
}

// emit tells an event with the state of the whole pod.
func (r *Runtime) emit(s *sandbox, id string, kind runtimeapi.ContainerEventType) {
	if s == nil || !r.events.heard() {
		return
	}
	e := &runtimeapi.ContainerEventResponse{ContainerId: id, ContainerEventType: kind, CreatedAt: time.Now().UnixNano()}
	rec := s.record.Load()
	e.PodSandboxStatus = sandboxStatus(rec)
	for _, c := range r.containersOf(rec.ID) {
		e.ContainersStatuses = append(e.ContainersStatuses, containerStatus(c.record.Load()))
	}
	r.events.send(e)
}
