// SPDX-License-Identifier: Apache-2.0

package podworker

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// recorder notes the steps and does what it is told in them.
type recorder struct {
	mu    sync.Mutex
	steps []string
	sync  func(ctx context.Context) (Outcome, error)
	term  func(ctx context.Context, end End) error
	clean func() error
}

func (r *recorder) note(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = append(r.steps, s)
}

func (r *recorder) Sync(ctx context.Context, _ *corev1.Pod) (Outcome, error) {
	r.note("sync")
	if r.sync != nil {
		return r.sync(ctx)
	}
	return Outcome{}, nil
}

func (r *recorder) Terminate(ctx context.Context, _ *corev1.Pod, end End) error {
	r.note("terminate")
	if r.term != nil {
		return r.term(ctx, end)
	}
	return nil
}

func (r *recorder) Clean(context.Context, *corev1.Pod) error {
	r.note("clean")
	if r.clean != nil {
		return r.clean()
	}
	return nil
}

func (r *recorder) Forget(context.Context, *corev1.Pod) { r.note("forget") }

func (r *recorder) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.steps, want) {
		t.Errorf("got steps %v, want %v", r.steps, want)
	}
}

func bubble(t *testing.T, r *recorder, story func(t *testing.T, p *Pool)) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Config{Syncer: r, Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		story(t, p)
		cancel()
		running.Wait()
	})
}

func pod(change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"}}
	for _, c := range change {
		c(p)
	}
	return p
}

func deleted(seconds int64) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		at := metav1.Now()
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &at, &seconds
	}
}

// The transitions that the package comment draws, one story each.
func TestTransitions(t *testing.T) {
	t.Run("a pod is deleted", func(t *testing.T) {
		r := &recorder{}
		bubble(t, r, func(t *testing.T, p *Pool) {
			p.Update(pod())
			r.want(t, "sync")
			p.Update(pod(deleted(30)))
			r.want(t, "sync", "terminate", "clean")
			if s, ok := p.State("u"); !ok || s != Finished {
				t.Errorf("got state %v, %t, want Finished", s, ok)
			}
			p.Remove("u")
			r.want(t, "sync", "terminate", "clean", "forget")
			if _, ok := p.State("u"); ok {
				t.Error("the pod is still known")
			}
		})
	})
	t.Run("a pod comes to its end", func(t *testing.T) {
		r := &recorder{sync: func(context.Context) (Outcome, error) { return Outcome{Over: true}, nil }}
		bubble(t, r, func(t *testing.T, p *Pool) {
			p.Update(pod())
			r.want(t, "sync", "terminate", "clean")
		})
	})
	t.Run("a pod that is over is not run again", func(t *testing.T) {
		r := &recorder{}
		bubble(t, r, func(t *testing.T, p *Pool) {
			p.Update(pod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }))
			r.want(t, "terminate", "clean")
		})
	})
	t.Run("a deletion cuts a step short", func(t *testing.T) {
		r := &recorder{sync: func(ctx context.Context) (Outcome, error) { <-ctx.Done(); return Outcome{}, ctx.Err() }}
		bubble(t, r, func(t *testing.T, p *Pool) {
			p.Update(pod())
			r.want(t, "sync")
			p.Update(pod(deleted(30)))
			r.want(t, "sync", "terminate", "clean")
		})
	})
	t.Run("a shorter grace cuts an end short", func(t *testing.T) {
		r := &recorder{}
		first := true
		r.term = func(ctx context.Context, _ End) error {
			if !first {
				return nil
			}
			first = false
			<-ctx.Done()
			return ctx.Err()
		}
		bubble(t, r, func(t *testing.T, p *Pool) {
			p.Update(pod(deleted(30)))
			r.want(t, "terminate")
			p.Update(pod(deleted(1)))
			r.want(t, "terminate", "terminate", "clean")
		})
	})
	t.Run("a step that fails is repeated", func(t *testing.T) {
		r := &recorder{}
		fails := 2
		r.clean = func() error {
			if fails--; fails >= 0 {
				return errors.New("busy")
			}
			return nil
		}
		bubble(t, r, func(t *testing.T, p *Pool) {
			p.Update(pod(deleted(0)))
			<-time.After(10 * time.Second)
			r.want(t, "terminate", "clean", "clean", "clean")
		})
	})
	t.Run("a worker sleeps until it is woken or it is time", func(t *testing.T) {
		r := &recorder{}
		r.sync = func(context.Context) (Outcome, error) {
			if len(r.steps) == 2 {
				return Outcome{RetryAt: time.Now().Add(time.Minute)}, nil
			}
			return Outcome{}, nil
		}
		bubble(t, r, func(t *testing.T, p *Pool) {
			p.Update(pod())
			<-time.After(time.Hour)
			r.want(t, "sync")
			p.Wake("u")
			r.want(t, "sync", "sync")
			<-time.After(time.Hour)
			r.want(t, "sync", "sync", "sync")
		})
	})
}
