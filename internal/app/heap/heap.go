// SPDX-License-Identifier: Apache-2.0

// Package heap decides how often a server's garbage is collected. The verbs that
// serve call Pace once; nothing else in the program sets the collector.
//
// Go collects when as much garbage has gathered as there is live data. A small
// server under load then does little else: with 20 MB alive it reads them again
// for every 20 MB of requests. While collections follow one another quickly, some
// more may gather; once they no longer do, Go's own measure holds again.
//
// At rest Go keeps the garbage it has not come to, as much as there is live data,
// and gives freed memory back slowly. A server that had much to do gives both
// back at once when there is nothing more to do.
package heap

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// garbage is how much may gather under load, whatever is alive; on a machine
	// with less than 4 GiB it is a share of its memory.
	garbage = 128 << 20
	share   = 32

	busy = time.Second      // between two collections, at most: there is load
	some = 10 * time.Second // the same: something is being done
	rest = 5 * time.Second  // since the last collection: there is none

	standard = 100 // Go's default of GOGC
	most     = 400

	// worthwhile is how much there has to be to give back, besides a quarter of what
	// is alive, where it is not known that something was done.
	worthwhile = 32 << 20
	// little is what may be allocated between two looks by a process that rests.
	little = 8 << 20
)

// Pace lets more garbage gather while the process is busy, until stop is called.
// It does nothing where GOGC says what is wanted.
func Pace() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	p := newPacer(rest)
	return p.stop
}

// pacer hears of every collection, by an object that each of them finds
// unreachable.
type pacer struct {
	garbage uint64

	mu        sync.Mutex
	last      time.Time // of the last collection
	percent   int
	calm      *time.Timer // looks whether the load has ended
	allocated uint64      // ever, at the last look
	owing     bool        // something was done, and memory is to be given back
	own       bool        // the next collection is the pacer's own, and says nothing
	stopped   bool
}

func newPacer(rest time.Duration) *pacer {
	p := &pacer{garbage: allowed(), percent: standard}
	p.calm = time.AfterFunc(rest, func() { p.look(rest) })
	p.listen(rest)
	return p
}

// listen has the next collection reported.
func (p *pacer) listen(rest time.Duration) {
	type sentinel struct{ p *pacer } // a pointer, so that nothing else shares its block
	runtime.AddCleanup(&sentinel{p}, func(p *pacer) {
		if p.collected(rest) {
			p.listen(rest)
		}
	}, p)
}

// collected is called after a collection; false ends the listening.
func (p *pacer) collected(rest time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return false
	}
	if p.own {
		p.own = false
		return true
	}
	now := time.Now()
	if now.Sub(p.last) < busy {
		p.set(percent(p.garbage, heap().live))
	}
	p.owing = p.owing || now.Sub(p.last) < some
	p.last = now
	p.calm.Reset(rest)
	return true
}

// look is called when there was no collection for some time, and again until the
// process rests.
func (p *pacer) look(again time.Duration) {
	p.mu.Lock()
	p.set(standard)
	u := heap()
	rests := u.allocated-p.allocated < little
	p.allocated = u.allocated
	p.owing = p.owing || u.held > u.live+u.live/4+worthwhile
	give := p.owing && rests && !p.stopped
	switch {
	case give:
		p.owing, p.own = false, true
	case p.owing && !p.stopped:
		p.calm.Reset(again)
	}
	p.mu.Unlock()
	if give {
		debug.FreeOSMemory()
	}
}

// set changes the collector's measure where that is worth the short stop that it
// costs; p.mu is held.
func (p *pacer) set(percent int) {
	if p.stopped || percent == p.percent || percent != standard && percent*10 > p.percent*9 && percent*10 < p.percent*11 {
		return
	}
	p.percent = percent
	debug.SetGCPercent(percent)
}

func (p *pacer) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calm.Stop()
	p.set(standard)
	p.stopped = true
}

// percent is the measure by which an amount of garbage gathers beside live data.
func percent(garbage, live uint64) int {
	return int(min(max(garbage*100/max(live, 1), standard), most))
}

// use is what the heap is used for, in bytes.
type use struct {
	live      uint64 // what the last collection left
	held      uint64 // by objects, dead ones among them, and by whole pages that are free
	allocated uint64 // ever
}

func heap() use {
	s := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/heap/allocs:bytes"},
	}
	metrics.Read(s)
	return use{live: s[0].Value.Uint64(), held: s[1].Value.Uint64() + s[2].Value.Uint64(), allocated: s[3].Value.Uint64()}
}

// allowed is how much garbage this machine's memory has room for.
func allowed() uint64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return garbage / 4
	}
	return min(garbage, uint64(info.Totalram)*uint64(info.Unit)/share)
}
