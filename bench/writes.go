// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// writes are how many requests changed something, or tried to, since the API
// server began: of Events, and of all else. Leases and reviews do not count.
type writes struct{ events, others int }

// writes reads the API server's metrics; what c wrote itself is not in it.
func (c *client) writes(ctx context.Context) (writes, error) {
	r, err := c.open(ctx, http.MethodGet, "/metrics", "", "*/*", nil)
	if err != nil {
		return writes{}, fmt.Errorf("reading the API server's metrics: %w", err)
	}
	defer r.Close()
	var w writes
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		w.count(lines.Text())
	}
	w.others -= int(c.written.Load())
	return w, lines.Err()
}

// count adds a line of the metrics, when it is about writes.
func (w *writes) count(line string) {
	labels, ok := strings.CutPrefix(line, "apiserver_request_total{")
	if !ok || !changes(labels) {
		return
	}
	_, value, _ := strings.Cut(labels, "} ")
	n, err := strconv.ParseFloat(value, 64)
	switch {
	case err != nil:
	case strings.Contains(labels, `resource="events"`):
		w.events += int(n)
	default:
		w.others += int(n)
	}
}

// changes says whether requests with these labels change what is stored.
func changes(labels string) bool {
	for _, not := range []string{`resource="leases"`, `group="authentication.k8s.io"`, `group="authorization.k8s.io"`, `subresource="token"`} {
		if strings.Contains(labels, not) {
			return false
		}
	}
	for _, verb := range []string{"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"} {
		if strings.Contains(labels, `verb="`+verb+`"`) {
			return true
		}
	}
	return false
}

// since is what was written after an earlier reading.
func (w writes) since(before writes) writes {
	return writes{w.events - before.events, w.others - before.others}
}

// report adds what was written while something happened.
func (w writes) report(report *Report, t *Target, during string) {
	add(report, t, Result{Operation: "writes: " + during, Count: w.others})
	add(report, t, Result{Operation: "writes of events: " + during, Count: w.events})
}

// stretch is a piece of work that is measured: what was spent and written
// before it.
type stretch struct {
	began time.Time
	cpu   time.Duration
	wrote writes
}

// begin starts a stretch.
func begin(ctx context.Context, c *client, t *Target) (stretch, error) {
	wrote, err := c.writes(ctx)
	return stretch{time.Now(), t.Process.CPU(), wrote}, err
}

// end reports what a stretch took, and what was written in it.
func (s stretch) end(ctx context.Context, c *client, t *Target, report *Report, what string) error {
	res := Result{Operation: what, Count: 1, Elapsed: time.Since(s.began), CPU: t.Process.CPU() - s.cpu}
	res.RSS, res.Anonymous = t.Process.Memory()
	add(report, t, res)
	now, err := c.writes(ctx)
	if err != nil {
		return err
	}
	now.since(s.wrote).report(report, t, what)
	return nil
}
