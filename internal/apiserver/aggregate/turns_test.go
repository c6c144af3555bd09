// SPDX-License-Identifier: Apache-2.0

package aggregate

import (
	"fmt"
	"testing"
	"time"
)

// Who fails is looked at again soon and then ever later, but not later than who
// does not; what changes makes it due at once.
func TestTurns(t *testing.T) {
	all, now := turns{}, time.Unix(1000, 0)
	all.hurry("a")
	var waits []time.Duration
	for range 16 {
		name, ok := all.take(now)
		if !ok || name != "a" {
			t.Fatalf("nothing is due after %v", waits)
		}
		all.finish(name, now, true)
		wait, _ := all.wait(now)
		waits = append(waits, wait)
		if _, early := all.take(now.Add(wait - 1)); early {
			t.Fatalf("due before %v passed", wait)
		}
		now = now.Add(wait)
	}
	if waits[0] != 5*time.Millisecond || waits[1] != 10*time.Millisecond || waits[12] != 20480*time.Millisecond || waits[13] != 30*time.Second || waits[15] != 30*time.Second {
		t.Errorf("waits %v", waits)
	}
	all.take(now)
	all.finish("a", now, true)
	all.hurry("a")
	if _, ok := all.take(now); !ok {
		t.Fatal("a change does not make it due")
	}
	all.hurry("a") // while it is looked at
	if _, ok := all.take(now); ok {
		t.Fatal("looked at twice at the same time")
	}
	all.finish("a", now, false)
	if _, ok := all.take(now); !ok {
		t.Error("a change while it was looked at is lost")
	}
	all.finish("a", now, false)
	if wait, _ := all.wait(now); wait != 30*time.Second {
		t.Errorf("one that is well is looked at again after %v", wait)
	}
}

// What is gone is not looked at, even when it goes at the wrong moment.
func TestTurnsForget(t *testing.T) {
	all, now := turns{}, time.Unix(1000, 0)
	all.hurry("a")
	all.forget("a")
	if _, ok := all.take(now); ok {
		t.Error("forgotten, and due")
	}
	all.hurry("a")
	all.take(now)
	all.forget("a")
	all.finish("a", now, true)
	if _, some := all.wait(now); some || len(all) != 0 {
		t.Error("forgotten while it was looked at, and due")
	}
}

// A thousand dead servers do not take a thousand connections at a time.
func TestTurnsBounded(t *testing.T) {
	all, now := turns{}, time.Unix(1000, 0)
	for i := range 1000 {
		all.hurry(fmt.Sprint(i))
	}
	taken := 0
	for _, ok := all.take(now); ok; _, ok = all.take(now) {
		taken++
	}
	if taken != atOnce {
		t.Errorf("%d at once", taken)
	}
}
