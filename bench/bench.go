// SPDX-License-Identifier: Apache-2.0

// Package bench measures Kubernetes: any API server as a client sees it, a
// scheduler, custom resources, a container runtime, and a whole cluster of this
// program. It reports
// operations per second and latencies, and, for processes of the same machine,
// the CPU time an operation costs and the resident memory, which are what can be
// compared on a noisy machine.
//
// The verb `kaji bench` calls it. It speaks to its targets by their public protocols only and never
// looks into them, so that upstream's components are measured by the same means.
package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

// Result is what one kind of operation cost.
type Result struct {
	Target    string        `json:"target,omitempty"`
	Operation string        `json:"operation"`
	Count     int           `json:"count"`
	Errors    int           `json:"errors,omitempty"`
	Error     string        `json:"error,omitempty"` // the first one
	Elapsed   time.Duration `json:"elapsedNanoseconds"`
	P50       time.Duration `json:"p50Nanoseconds,omitempty"`
	P99       time.Duration `json:"p99Nanoseconds,omitempty"`
	Bytes     int64         `json:"bytes,omitempty"`          // of answers
	CPU       time.Duration `json:"cpuNanoseconds,omitempty"` // of the target's process, in all
	RSS       int64         `json:"rssBytes,omitempty"`       // resident afterwards
	Anonymous int64         `json:"anonymousBytes,omitempty"` // of it, not backed by files
}

// Report collects results and is safe for concurrent use.
type Report struct {
	mu      sync.Mutex
	results []Result
	live    io.Writer
}

// NewReport returns a report that says on live, when not nil, what was measured
// as soon as it was.
func NewReport(live io.Writer) *Report { return &Report{live: live} }

// Add appends a result.
func (r *Report) Add(res Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results = append(r.results, res)
	if r.live != nil {
		fmt.Fprintf(r.live, "  %s %s: %d in %s\n", res.Target, res.Operation, res.Count, res.Elapsed.Round(time.Millisecond))
	}
}

// Results returns what was added.
func (r *Report) Results() []Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.results)
}

// JSON writes a document a line.
func (r *Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	for _, res := range r.Results() {
		if err := enc.Encode(res); err != nil {
			return err
		}
	}
	return nil
}

// Table writes the results for people, the targets beside one another.
func (r *Report) Table(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "target\toperation\tcount\terrors\tper second\tp50\tp99\tbytes\tCPU/op\tRSS\tanonymous\t")
	results := r.Results()
	order := []string{}
	for _, res := range results {
		if !slices.Contains(order, res.Operation) {
			order = append(order, res.Operation)
		}
	}
	slices.SortStableFunc(results, func(a, b Result) int {
		return slices.Index(order, a.Operation) - slices.Index(order, b.Operation)
	})
	for _, res := range results {
		rate := "-"
		if res.Elapsed > 0 && res.Count > 0 {
			rate = fmt.Sprintf("%.1f", float64(res.Count)/res.Elapsed.Seconds())
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", res.Target, res.Operation, res.Count, res.Errors,
			rate, short(res.P50), short(res.P99), size(res.Bytes), each(res), size(res.RSS), size(res.Anonymous))
	}
	for _, res := range results {
		if res.Error != "" {
			fmt.Fprintf(tw, "%s %s: %s\n", res.Target, res.Operation, res.Error)
		}
	}
	return tw.Flush()
}

func each(res Result) string {
	if res.CPU == 0 || res.Count == 0 {
		return "-"
	}
	return short(res.CPU / time.Duration(res.Count))
}

func short(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Millisecond:
		return d.Round(100 * time.Nanosecond).String()
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

func size(n int64) string {
	switch {
	case n == 0:
		return "-"
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// measure runs do count times by so many workers, each call with a number of
// its own, and watches the process meanwhile. Calls that fail are counted.
func measure(ctx context.Context, name string, p *Process, workers, count int, do func(ctx context.Context, i int) (int64, error)) Result {
	res := Result{Operation: name, Count: count}
	var (
		next   atomic.Int64
		bytes  atomic.Int64
		failed atomic.Int64
		first  sync.Once
		all    sync.WaitGroup
		took   = make([]time.Duration, count)
	)
	before := p.CPU()
	began := time.Now()
	for range min(workers, count) {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(count) && ctx.Err() == nil; i = next.Add(1) - 1 {
				start := time.Now()
				n, err := do(ctx, int(i))
				took[i] = time.Since(start)
				bytes.Add(n)
				if err != nil {
					failed.Add(1)
					first.Do(func() { res.Error = strings.TrimSpace(err.Error()) })
				}
			}
		})
	}
	all.Wait()
	res.Elapsed = time.Since(began)
	res.CPU = p.CPU() - before
	res.Bytes, res.Errors = bytes.Load(), int(failed.Load())
	res.RSS, res.Anonymous = p.Memory()
	slices.Sort(took)
	if count > 0 {
		res.P50, res.P99 = took[count/2], took[min(count-1, count*99/100)]
	}
	return res
}
