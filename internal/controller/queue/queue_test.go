// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestAKeyRunsOnceAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		running, most, runs := 0, 0, 0
		started := make(chan struct{}, 10)
		release := make(chan struct{})
		q := New("test", nil, func(context.Context, string) error {
			running++
			most = max(most, running)
			runs++
			started <- struct{}{}
			<-release
			running--
			return nil
		})
		done := make(chan struct{})
		go func() { q.Run(ctx, 4); close(done) }()
		q.Add("a")
		<-started
		q.Add("a") // while it runs: once more afterwards
		q.Add("a")
		release <- struct{}{}
		<-started
		release <- struct{}{}
		synctest.Wait()
		if most != 1 || runs != 2 {
			t.Errorf("%d at a time, %d runs; want 1 and 2", most, runs)
		}
		if len(q.state) != 0 {
			t.Errorf("%d keys are remembered", len(q.state))
		}
		cancel()
		<-done
	})
}

func TestFailuresComeAgainWithGrowingDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		begin := time.Now()
		var at []time.Duration
		q := New("test", nil, func(context.Context, string) error {
			if at = append(at, time.Since(begin)); len(at) < 4 {
				return errors.New("not yet")
			}
			return nil
		})
		done := make(chan struct{})
		go func() { q.Run(ctx, 1); close(done) }()
		q.Add("a")
		<-time.After(time.Minute)
		synctest.Wait()
		want := []time.Duration{0, 5 * time.Millisecond, 15 * time.Millisecond, 35 * time.Millisecond}
		if len(at) != len(want) {
			t.Fatalf("ran at %v", at)
		}
		for i := range want {
			if at[i] != want[i] {
				t.Errorf("ran at %v, want %v", at, want)
			}
		}
		cancel()
		<-done
	})
}

func TestTheShortestDelayCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		begin := time.Now()
		var at []time.Duration
		q := New("test", nil, func(context.Context, string) error { at = append(at, time.Since(begin)); return nil })
		done := make(chan struct{})
		go func() { q.Run(ctx, 1); close(done) }()
		q.AddAfter("a", time.Hour)
		q.AddAfter("a", time.Minute)
		q.AddAfter("a", 2*time.Minute)
		<-time.After(2 * time.Hour)
		synctest.Wait()
		if len(at) != 1 || at[0] != time.Minute {
			t.Errorf("ran at %v, want once after a minute", at)
		}
		cancel()
		<-done
	})
}

// The delays are the queue's own; a conflict is tried again soon.
func TestDelaysOfAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			err  error
			want []time.Duration
		}{
			{errors.New("no"), []time.Duration{0, 1e9, 3e9, 7e9, 11e9, 15e9}},
			{apierrors.NewConflict(schema.GroupResource{}, "a", errors.New("no")), []time.Duration{0, 5e6, 15e6, 35e6, 75e6, 155e6}},
		} {
			ctx, cancel := context.WithCancel(t.Context())
			begin := time.Now()
			var at []time.Duration
			q := New("test", nil, func(context.Context, string) error {
				if at = append(at, time.Since(begin)); len(at) == len(c.want) {
					return nil
				}
				return c.err
			}).Between(time.Second, 4*time.Second)
			done := make(chan struct{})
			go func() { q.Run(ctx, 1); close(done) }()
			q.Add("a")
			<-time.After(time.Minute)
			synctest.Wait()
			if !slices.Equal(at, c.want) {
				t.Errorf("%v: ran at %v, want %v", c.err, at, c.want)
			}
			cancel()
			<-done
		}
	})
}
