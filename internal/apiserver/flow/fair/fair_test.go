// SPDX-License-Identifier: Apache-2.0

package fair_test

import (
	"context"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kaji/internal/apiserver/flow/fair"
)

// Hashes of two flows, well mixed as those of package flow are.
const flood, quiet uint64 = 0x9e3779b97f4a7c15, 0xc2b2ae3d27d4eb4f

var queueing = fair.Queueing{Queues: 64, Hand: 6, Length: 50}

// TestFlood says that a flood of one flow neither refuses nor starves another:
// with the level full, the other gets its share of the seats.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		level := fair.NewLevel(4, queueing)
		work := func(hash uint64, until time.Time, served, refused *int, mu *sync.Mutex) {
			for time.Now().Before(until) {
				ticket, _, reason := level.Acquire(t.Context(), hash, 1, time.Minute)
				if reason != "" {
					mu.Lock()
					*refused++
					mu.Unlock()
					time.Sleep(time.Millisecond)
					continue
				}
				time.Sleep(10 * time.Millisecond)
				ticket.Release()
				mu.Lock()
				*served++
				mu.Unlock()
			}
		}
		var mu sync.Mutex
		var all sync.WaitGroup
		var floods, quiets, floodRefused, quietRefused int
		until := time.Now().Add(10 * time.Second)
		for range 200 {
			all.Go(func() { work(flood, until, &floods, &floodRefused, &mu) })
		}
		for range 4 {
			all.Go(func() { work(quiet, until, &quiets, &quietRefused, &mu) })
		}
		all.Wait()
		if quietRefused > 0 {
			t.Errorf("%d requests of the quiet flow were refused", quietRefused)
		}
		// 4 seats, 10 ms each: 4,000 in 10 s. The flood sits in up to six queues,
		// the quiet flow in up to four: each queue gets an equal share.
		if total := floods + quiets; total < 3800 || quiets < 1200 {
			t.Errorf("served %d of the flood and %d of the quiet flow", floods, quiets)
		}
	})
}

// TestRefusals says why requests are refused.
func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		none := fair.NewLevel(1, fair.Queueing{})
		first, _, _ := none.Acquire(t.Context(), 0, 1, time.Minute)
		if _, _, reason := none.Acquire(t.Context(), 0, 1, time.Minute); reason != fair.Limited {
			t.Errorf("without queues: %q", reason)
		}
		first.Release()
		if _, _, reason := none.Acquire(t.Context(), 0, 1, time.Minute); reason != "" {
			t.Errorf("seats that were given back: %q", reason)
		}

		one := fair.NewLevel(1, fair.Queueing{Queues: 1, Hand: 1, Length: 1})
		held, _, _ := one.Acquire(t.Context(), 0, 1, time.Minute)
		var waits sync.WaitGroup
		waits.Go(func() {
			if _, waited, reason := one.Acquire(t.Context(), 0, 1, time.Second); reason != fair.TimeOut || waited != time.Second {
				t.Errorf("waited %v: %q", waited, reason)
			}
		})
		synctest.Wait()
		if _, _, reason := one.Acquire(t.Context(), 0, 1, time.Minute); reason != fair.Full {
			t.Errorf("a full queue: %q", reason)
		}
		waits.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		waits.Go(func() {
			if _, _, reason := one.Acquire(ctx, 0, 1, time.Minute); reason != fair.Cancelled {
				t.Errorf("cancelled: %q", reason)
			}
		})
		synctest.Wait()
		cancel()
		waits.Wait()
		if s := one.State(); s.Waiting != 0 || s.Wanted != 0 || s.InUse != 1 {
			t.Errorf("%+v", s)
		}
		held.Release()
	})
}

// TestWide says that a wide request waits for its seats, keeps later ones from
// overtaking it for ever, and runs alone when it is wider than the level.
func TestWide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		level := fair.NewLevel(4, queueing)
		small, _, _ := level.Acquire(t.Context(), 1, 1, time.Minute)
		var waits sync.WaitGroup
		waits.Go(func() {
			wide, waited, reason := level.Acquire(t.Context(), 2, 10, time.Minute)
			if reason != "" || waited != time.Second {
				t.Errorf("%q after %v", reason, waited)
			}
			time.Sleep(time.Second)
			wide.Release()
		})
		synctest.Wait()
		waits.Go(func() {
			late, waited, reason := level.Acquire(t.Context(), 3, 1, time.Minute)
			if reason != "" || waited < time.Second {
				t.Errorf("overtook: %q after %v", reason, waited)
			}
			late.Release()
		})
		synctest.Wait()
		time.Sleep(time.Second)
		small.Release()
		waits.Wait()
		if s := level.State(); s.InUse != 0 || s.Running != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestReconfigure says that waiting requests survive a change of the queues and
// of the limit.
func TestReconfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		level := fair.NewLevel(1, queueing)
		held, _, _ := level.Acquire(t.Context(), 1, 1, time.Minute)
		var waits sync.WaitGroup
		for i := range 10 {
			waits.Go(func() {
				ticket, _, reason := level.Acquire(t.Context(), uint64(i), 1, time.Minute)
				if reason != "" {
					t.Errorf("%d: %q", i, reason)
					return
				}
				ticket.Release()
			})
		}
		synctest.Wait()
		level.Reconfigure(fair.Queueing{Queues: 2, Hand: 1, Length: 50})
		level.Reconfigure(fair.Queueing{})
		level.SetLimit(2)
		waits.Wait()
		held.Release()
		if s := level.State(); s.InUse != 0 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		level := fair.NewLevel(4, queueing)
		time.Sleep(5 * time.Second)
		ticket, _, _ := level.Acquire(t.Context(), 1, 4, time.Minute)
		time.Sleep(5 * time.Second)
		ticket.Release()
		d := level.TakeDemand()
		if d.High != 4 || math.Abs(d.Average-2) > 1e-9 || math.Abs(d.Deviation-2) > 1e-9 || d.Over != 10*time.Second {
			t.Errorf("%+v", d)
		}
		time.Sleep(time.Second)
		if d := level.TakeDemand(); d.High != 0 || d.Average != 0 {
			t.Errorf("afterwards %+v", d)
		}
	})
}

func TestAllocate(t *testing.T) {
	for _, c := range []struct {
		total  int
		claims []fair.Claim
		want   []float64
	}{
		{100, []fair.Claim{{10, 100, 20}, {10, 100, 60}}, []float64{25, 75}},
		{100, []fair.Claim{{40, 100, 40}, {10, 100, 120}}, []float64{40, 60}},
		{100, []fair.Claim{{10, 30, 100}, {10, 100, 10}}, []float64{30, 70}},
		{10, []fair.Claim{{10, 30, 10}, {10, 30, 10}}, []float64{10, 10}},
		{100, []fair.Claim{{0, 30, 0}, {0, 30, 0}}, []float64{30, 30}},
	} {
		got, _ := fair.Allocate(c.total, c.claims)
		for i := range got {
			if math.Abs(got[i]-c.want[i]) > 1e-3 {
				t.Errorf("%+v: %v, want %v", c.claims, got, c.want)
				break
			}
		}
	}
}

func BenchmarkAcquire(b *testing.B) {
	level := fair.NewLevel(100, queueing)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			ticket, _, _ := level.Acquire(context.Background(), 7, 1, time.Minute)
			ticket.Release()
		}
	})
}
