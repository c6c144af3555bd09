// SPDX-License-Identifier: Apache-2.0

// Package podworker gives each pod of the node one worker that moves it
// through its life. A pod is in one of these states:
//
//	            Update                end asked for, or pod finished
//	(unknown) ─────────► Syncing ───────────────────────────────► Terminating
//	    │                                                              │ all containers ended
//	    │ Update of a pod that is over already                        ▼
//	    └───────────────────────────────────────────────────────► Terminated
//	                                                                   │ nothing left on the node
//	                                                                   ▼
//	(unknown) ◄───────────── pod gone from its source ──────────── Finished
//
// A worker takes one step at a time. What happens meanwhile wakes it again
// afterwards; an end that is asked for cuts short the step in progress, and so
// does a shorter grace. A worker sleeps until something wakes it: there is no
// polling. A pod that its source has again while it is on its way out goes all of
// that way first. What the steps do is the Syncer's matter.
package podworker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/kubelet/podspec"
)

// State is where a pod is in its life.
type State int

// The states, in the order of life.
const (
	Syncing State = iota
	Terminating
	Terminated
	Finished
)

func (s State) String() string {
	return [...]string{"Syncing", "Terminating", "Terminated", "Finished"}[s]
}

// Outcome is what a step of Syncing came to.
type Outcome struct {
	// Over says that the pod has come to its end by itself.
	Over bool
	// Again asks for the next step at once: the step changed something.
	Again bool
	// RetryAt asks for the next step at a time; zero for none.
	RetryAt time.Time
}

// End says how a pod is to be ended.
type End struct {
	// Grace overrides the pod's own; nil for none.
	Grace *time.Duration
	// Status changes the pod's status as the end begins: evictions.
	Status func(*corev1.PodStatus)
	// Gone says that the pod has vanished from its source.
	Gone bool
}

// Syncer does the work. Calls for one pod never overlap. An error is logged,
// and the step repeated after a while.
type Syncer interface {
	Sync(ctx context.Context, pod *corev1.Pod) (Outcome, error)
	// Terminate ends all containers; it returns nil when none runs any more.
	Terminate(ctx context.Context, pod *corev1.Pod, end End) error
	// Clean removes what the pod has on the node beside dead containers:
	// volumes, cgroups. After it a pod may be deleted from the API server.
	Clean(ctx context.Context, pod *corev1.Pod) error
	// Forget removes the rest of a pod that is gone from its source.
	Forget(ctx context.Context, pod *corev1.Pod)
}

// Config is what a Pool needs.
type Config struct {
	Syncer Syncer
	Logger *slog.Logger
	// ErrorRetry is the wait after a step that failed; zero means 2 s.
	ErrorRetry time.Duration
	// Back is told of a pod that was gone from its source, came back while it was being
	// ended, and is forgotten now: it is to be begun anew. Nil means Update.
	Back func(*corev1.Pod)
}

// Pool is the set of workers. Its methods may be called from anywhere.
type Pool struct {
	cfg     Config
	workers sync.WaitGroup
	mu      struct {
		sync.Mutex
		ctx context.Context
		all map[types.UID]*worker
	}
}

// worker is one pod's. Its fields are guarded by the pool's lock.
type worker struct {
	pod   *corev1.Pod
	state State
	end   *End
	// wake has room for one: a worker that is awake needs no more.
	wake chan struct{}
	// cut ends the step in progress.
	cut context.CancelFunc
	// gone says that the pod's source has it no more.
	gone bool
	// back is what the source has again after that; the worker ends its pod before.
	back *corev1.Pod
}

// New returns a pool; workers start once Run was called.
func New(cfg Config) *Pool {
	if cfg.ErrorRetry == 0 {
		cfg.ErrorRetry = 2 * time.Second
	}
	p := &Pool{cfg: cfg}
	p.mu.all = map[types.UID]*worker{}
	return p
}

// Run lets workers work until ctx ends, and waits for them. Pods keep running.
func (p *Pool) Run(ctx context.Context) error {
	p.mu.Lock()
	p.mu.ctx = ctx
	for _, w := range p.mu.all {
		p.start(w)
	}
	p.mu.Unlock()
	<-ctx.Done()
	p.workers.Wait()
	return nil
}

// start is called with the lock held.
func (p *Pool) start(w *worker) {
	if p.mu.ctx == nil || p.mu.ctx.Err() != nil {
		return
	}
	ctx := p.mu.ctx
	p.workers.Go(func() { p.work(ctx, w) })
}

// Update tells the newest specification of a pod. A pod that is being deleted
// is ended. One that was gone before is begun anew when its end has come.
func (p *Pool) Update(pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.mu.all[pod.UID]
	if w == nil {
		w = &worker{pod: pod, wake: make(chan struct{}, 1)}
		p.mu.all[pod.UID] = w
		p.start(w)
	}
	if w.gone {
		w.back = pod
		return
	}
	shorter := pod.DeletionTimestamp != nil && (w.pod.DeletionTimestamp == nil || podspec.Grace(pod) < podspec.Grace(w.pod))
	w.pod = pod
	switch {
	case pod.DeletionTimestamp != nil:
		p.terminate(w, End{}, shorter)
	case podspec.Finished(pod):
		p.terminate(w, End{}, false)
	}
	w.rouse()
}

// Kill ends a pod; false says that no such pod is known.
func (p *Pool) Kill(uid types.UID, end End) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.mu.all[uid]
	if w == nil {
		return false
	}
	p.terminate(w, end, end.Grace != nil)
	w.rouse()
	return true
}

// Remove says that a pod is gone from its source: it is ended if need be, and
// then forgotten.
func (p *Pool) Remove(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.mu.all[uid]
	if w == nil {
		return
	}
	w.gone, w.back = true, nil
	p.terminate(w, End{Gone: true}, false)
	w.rouse()
}

// terminate is called with the lock held; hurry repeats an end in progress.
func (p *Pool) terminate(w *worker, end End, hurry bool) {
	switch {
	case w.state == Syncing:
		w.state = Terminating
		w.end = &end
	case w.state == Terminating && hurry:
		if end.Status == nil && w.end != nil {
			end.Status = w.end.Status
		}
		if end.Grace == nil && w.end != nil && w.pod.DeletionTimestamp == nil {
			end.Grace = w.end.Grace
		}
		w.end = &end
	default:
		return
	}
	if w.cut != nil {
		w.cut()
	}
}

// Wake makes a pod's worker look again.
func (p *Pool) Wake(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.mu.all[uid]; w != nil {
		w.rouse()
	}
}

// WakeAll makes all workers look again.
func (p *Pool) WakeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.mu.all {
		w.rouse()
	}
}

func (w *worker) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// State returns the state of a pod; false says that no such pod is known.
func (p *Pool) State(uid types.UID) (State, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.mu.all[uid]; w != nil {
		return w.state, true
	}
	return 0, false
}

// Gone says whether a pod's source has it no more.
func (p *Pool) Gone(uid types.UID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.mu.all[uid]
	return w == nil || w.gone
}

// Pods returns the pods that have a worker.
func (p *Pool) Pods() []*corev1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	pods := make([]*corev1.Pod, 0, len(p.mu.all))
	for _, w := range p.mu.all {
		pods = append(pods, w.pod)
	}
	return pods
}

// Pod returns the newest specification of a pod, nil where none is known.
func (p *Pool) Pod(uid types.UID) *corev1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.mu.all[uid]; w != nil {
		return w.pod
	}
	return nil
}

func (p *Pool) work(ctx context.Context, w *worker) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
		timer.Stop()
		again, at := p.step(ctx, w)
		if p.leave(ctx, w) {
			return
		}
		switch {
		case again:
			w.rouse()
		case !at.IsZero():
			timer.Reset(max(time.Until(at), 0))
		}
	}
}

// step takes one step of the state that the pod is in.
func (p *Pool) step(ctx context.Context, w *worker) (again bool, at time.Time) {
	p.mu.Lock()
	pod, state := w.pod, w.state
	end := End{}
	if w.end != nil {
		end = *w.end
	}
	stepCtx, cut := context.WithCancel(ctx)
	w.cut = cut
	p.mu.Unlock()
	defer cut()

	var err error
	next := state
	switch state {
	case Syncing:
		var out Outcome
		if out, err = p.cfg.Syncer.Sync(stepCtx, pod); err == nil {
			again, at = out.Again, out.RetryAt
			if out.Over {
				next = Terminating
			}
		}
	case Terminating:
		if err = p.cfg.Syncer.Terminate(stepCtx, pod, end); err == nil {
			next = Terminated
		}
	case Terminated:
		if err = p.cfg.Syncer.Clean(stepCtx, pod); err == nil {
			next = Finished
		}
	}
	cutShort := stepCtx.Err() != nil
	if err != nil && ctx.Err() == nil {
		at = time.Now().Add(p.cfg.ErrorRetry)
		if !cutShort {
			p.cfg.Logger.Warn("pod worker step failed", "pod", pod.Namespace+"/"+pod.Name, "uid", pod.UID, "state", state, "err", err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w.cut = nil
	if w.state == state && next != state && !(state == Terminating && cutShort && err != nil) {
		w.state = next
		if next == Terminating && w.end == nil {
			w.end = &End{}
		}
		again = true
	}
	if w.state != state {
		again = true
	}
	return again || cutShort, at
}

// leave ends the worker of a pod that is finished and gone.
func (p *Pool) leave(ctx context.Context, w *worker) bool {
	p.mu.Lock()
	done := w.state == Finished && w.gone
	if done {
		delete(p.mu.all, w.pod.UID)
	}
	pod, back := w.pod, w.back
	p.mu.Unlock()
	if !done {
		return false
	}
	p.cfg.Syncer.Forget(ctx, pod)
	switch {
	case back == nil:
	case p.cfg.Back != nil:
		p.cfg.Back(back)
	default:
		p.Update(back)
	}
	return true
}
