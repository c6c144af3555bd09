// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/queue"
	"kaji/internal/scheduler/snapshot"
)

// Bounds of what is timed call by call, so that clocks cost attempts nothing.
const (
	sampleEvery = 10 // attempts per one that is timed: upstream's share
	sampleNodes = 4  // nodes on which a timed attempt's filters and scores are
)

// evaluations counts the calls of one plugin of one profile, by the loop, which
// carries them over to the metrics when somebody asks. Judgements that alike
// pods share are counted once, as they are made once.
type evaluations struct{ preFilter, filter, preScore, score evaluation }

type evaluation struct {
	calls uint64
	total prometheus.Counter // nil when the plugin has no such point
}

func (e *evaluation) publish() {
	if e.total != nil {
		e.total.Add(float64(e.calls))
	}
	e.calls = 0
}

func (e *evaluations) publish() {
	e.preFilter.publish()
	e.filter.publish()
	e.preScore.publish()
	e.score.publish()
}

// evaluated gives every plugin that judges its series, which begin at zero.
func (m *metrics) evaluated(p *profile) {
	for i := range p.judges {
		j := &p.judges[i]
		series := func(point string) prometheus.Counter { return m.evaluations.WithLabelValues(j.name, point, p.name) }
		if j.filter != nil {
			j.calls.preFilter.total, j.calls.filter.total = series("PreFilter"), series("Filter")
		}
		if j.score == nil {
			continue
		}
		j.calls.score.total = series("Score")
		if hasPreScore(j.name) {
			j.calls.preScore.total = series("PreScore")
		}
	}
}

// hasPreScore says whether upstream knows the point for a plugin that scores.
func hasPreScore(name string) bool { return name != "ImageLocality" && name != "DynamicResources" }

// sampler times the calls of plugins in one attempt; nil times nothing.
type sampler struct {
	vec   *prometheus.HistogramVec
	nodes int // how many more are timed
}

// begin returns the time, or none when nothing is timed.
func (t *sampler) begin() pointTime {
	if t == nil {
		return pointTime{}
	}
	return time.Now()
}

func (t *sampler) observe(point, name string, code plugin.Code, began pointTime) {
	if t != nil {
		t.vec.WithLabelValues(name, point, code.String()).Observe(time.Since(began).Seconds())
	}
}

// node returns the sampler for the next node, nil when enough were timed.
func (t *sampler) node() *sampler {
	if t == nil || t.nodes == 0 {
		return nil
	}
	t.nodes--
	return t
}

// prepareFilter is a plugin's PreFilter.
func (j *judge) prepareFilter(a *attempt) (plugin.Filter, *plugin.Status) {
	began := a.sample.begin()
	f, st := j.filter.Filter(a.ctx, a.cycle)
	code := st.CodeOf()
	if code == plugin.Success && f.Node == nil && f.Only == nil {
		code = plugin.Skip
	} else {
		j.calls.preFilter.calls++
	}
	a.sample.observe("PreFilter", j.name, code, began)
	return f, st
}

// prepareScore is a plugin's PreScore.
func (j *judge) prepareScore(a *attempt, feasible []*snapshot.Node) (plugin.Score, *plugin.Status) {
	began := a.sample.begin()
	sc, st := j.score.Score(a.ctx, a.cycle, feasible)
	code := st.CodeOf()
	if code == plugin.Success && sc.Node == nil {
		code = plugin.Skip
	} else {
		j.calls.preScore.calls++
	}
	if hasPreScore(j.name) {
		a.sample.observe("PreScore", j.name, code, began)
	}
	return sc, st
}

// run judges one node; t may be nil.
func (f *filter) run(n *snapshot.Node, t *sampler) *plugin.Status {
	f.calls.filter.calls++
	if t == nil {
		return f.node(n)
	}
	began := t.begin()
	st := f.node(n)
	t.observe("Filter", f.name, st.CodeOf(), began)
	return st
}

// run values one node; t may be nil.
func (s *scorer) run(n *snapshot.Node, t *sampler) int64 {
	s.calls.score.calls++
	if t == nil {
		return s.node(n)
	}
	began := t.begin()
	v := s.node(n)
	t.observe("Score", s.name, plugin.Success, began)
	return v
}

// hintKey is a series of the queueing hints.
type hintKey struct {
	plugin string
	event  plugin.Event
	worth  bool
}

// hinted records how long a plugin took to say whether an event may help a
// pod; it is called by the loop only.
func (m *metrics) hinted(r queue.Rejector, e plugin.Event, worth bool, took time.Duration) {
	key := hintKey{r.Plugin, e, worth}
	o := m.hints[key]
	if o == nil {
		hint := "QueueSkip"
		if worth {
			hint = "Queue"
		}
		o = m.hintDuration.WithLabelValues(r.Plugin, e.Label(), hint)
		m.hints[key] = o
	}
	o.Observe(took.Seconds())
}
