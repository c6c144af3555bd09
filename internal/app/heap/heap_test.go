// SPDX-License-Identifier: Apache-2.0

package heap

import (
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

var sink []byte

// TestPace makes garbage until the collector is told to wait for more of it, and
// then none until it is told the opposite.
func TestPace(t *testing.T) {
	p := newPacer(50 * time.Millisecond)
	defer p.stop()
	until := time.Now().Add(30 * time.Second)
	for gogc() <= standard {
		if time.Now().After(until) {
			t.Fatal("under load the collector is as eager as ever")
		}
		sink = make([]byte, 1<<20)
	}
	for gogc() != standard {
		if time.Now().After(until) {
			t.Fatalf("at rest the collector waits for %d%% of garbage", gogc())
		}
		time.Sleep(time.Millisecond)
	}
}

// TestRest makes much garbage and rests: the memory goes back to the system.
func TestRest(t *testing.T) {
	p := newPacer(20 * time.Millisecond)
	defer p.stop()
	kept := make([][]byte, 64)
	for i := range 400 {
		sink = make([]byte, 1<<20)
		kept[i%len(kept)] = sink
	}
	if got := heap().held; got < 64<<20 {
		t.Fatalf("%d bytes are held while 64 MiB are in use", got)
	}
	runtime.KeepAlive(kept)
	kept, sink = nil, nil
	runtime.GC() // as the runtime does from time to time: the pages stay
	for until := time.Now().Add(30 * time.Second); heap().held > 16<<20; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d MiB are held", heap().held>>20)
		}
	}
}

// TestOwnCollection gives memory back: that is a collection, too, and must not be
// taken for something that was done, or a process at rest would go on for ever.
func TestOwnCollection(t *testing.T) {
	p := newPacer(time.Hour)
	defer p.stop()
	p.mu.Lock()
	p.last, p.owing = time.Now(), true
	p.mu.Unlock()
	is := func(what *bool) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return *what
	}
	until := time.Now().Add(30 * time.Second)
	for is(&p.owing) { // at the first look much was allocated since the last one
		p.look(time.Hour)
		if time.Now().After(until) {
			t.Fatal("the process does not rest")
		}
	}
	for is(&p.own) {
		if time.Now().After(until) {
			t.Fatal("its own collection is not noticed")
		}
		time.Sleep(time.Millisecond)
	}
	if is(&p.owing) {
		t.Error("its own collection counts as work")
	}
}

// TestStop leaves the collector as it was, whatever is collected from then on.
func TestStop(t *testing.T) {
	p := newPacer(time.Hour)
	p.mu.Lock()
	p.set(300)
	p.mu.Unlock()
	if gogc() != 300 {
		t.Fatalf("the collector waits for %d%%", gogc())
	}
	p.stop()
	if p.collected(time.Hour) || gogc() != standard {
		t.Fatalf("stopped, the collector waits for %d%%", gogc())
	}
}

func TestPercent(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 400}, {10 << 20, 400}, {64 << 20, 200}, {128 << 20, 100}, {4 << 30, 100}} {
		if got := percent(garbage, c.live); got != c.want {
			t.Errorf("with %d bytes alive: %d%%, want %d%%", c.live, got, c.want)
		}
	}
	if a := allowed(); a == 0 || a > garbage {
		t.Errorf("%d bytes of garbage allowed", a)
	}
}

func gogc() int {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return int(s[0].Value.Uint64())
}
