// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"fmt"
	"log/slog"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/scheduler/config"
	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/queue"
)

// profile is one scheduler name with its plugins, by extension point and in
// the order they are called.
type profile struct {
	name       string
	percentage int32
	log        *slog.Logger
	metrics    *profileMetrics

	judges      []judge // Filter, then Score, each in its order
	preEnqueue  []plugin.PreEnqueuer
	postFilters []plugin.PostFilterer
	reservers   []plugin.Reserver
	permitters  []plugin.Permitter
	preBinders  []plugin.PreBinder
	binders     []plugin.Binder

	groupJudges      []plugin.GroupJudge
	groupPostFilters []plugin.GroupPostFilterer

	extenders []*extender
	hints     map[queue.Rejector][]plugin.EventHint
}

// judge is a plugin that filters, scores, or both.
type judge struct {
	name   string
	signer plugin.Signer
	filter plugin.Filterer
	score  plugin.Scorer
	weight int64
	calls  *evaluations
}

// newProfile makes the plugins that a profile enables.
func newProfile(p *config.Profile, deps *dependencies, h plugin.Handle) (*profile, error) {
	made := map[string]plugin.Plugin{}
	for _, name := range p.Names() {
		construct, ok := registry[name]
		if !ok {
			return nil, fmt.Errorf("profile %q: plugin %q is not known", p.Name, name)
		}
		pl, err := construct(deps, h, p.Args[name])
		if err != nil {
			return nil, fmt.Errorf("profile %q: initializing plugin %q: %w", p.Name, name, err)
		}
		made[name] = pl
	}
	out := &profile{name: p.Name, percentage: p.PercentageOfNodesToScore, log: deps.log, hints: map[queue.Rejector][]plugin.EventHint{}}

	out.preEnqueue = enabled[plugin.PreEnqueuer](p, made, config.PreEnqueue)
	out.postFilters = enabled[plugin.PostFilterer](p, made, config.PostFilter)
	out.groupJudges = enabled[plugin.GroupJudge](p, made, config.PlacementFeasible)
	out.groupPostFilters = enabled[plugin.GroupPostFilterer](p, made, config.PodGroupPostFilter)
	out.reservers = enabled[plugin.Reserver](p, made, config.Reserve)
	out.permitters = enabled[plugin.Permitter](p, made, config.Permit)
	out.preBinders = enabled[plugin.PreBinder](p, made, config.PreBind)
	out.binders = enabled[plugin.Binder](p, made, config.Bind)
	if len(out.binders) == 0 {
		return nil, fmt.Errorf("profile %q: at least one bind plugin is needed", p.Name)
	}
	for _, f := range enabled[plugin.Filterer](p, made, config.Filter) {
		signer, _ := f.(plugin.Signer)
		out.judges = append(out.judges, judge{name: f.Name(), signer: signer, filter: f, calls: &evaluations{}})
	}
	for _, s := range enabled[plugin.Scorer](p, made, config.Score) {
		i := slices.IndexFunc(out.judges, func(j judge) bool { return j.name == s.Name() })
		if i < 0 {
			i = len(out.judges)
			signer, _ := s.(plugin.Signer)
			out.judges = append(out.judges, judge{name: s.Name(), signer: signer, calls: &evaluations{}})
		}
		out.judges[i].score = s
		out.judges[i].weight = p.Weight(s.Name())
	}
	for name, pl := range made {
		if e, ok := pl.(plugin.Eventer); ok {
			out.hints[queue.Rejector{Profile: p.Name, Plugin: name}] = e.Events()
		}
	}
	return out, nil
}

// enabled returns the plugins of a point that implement it, in order.
func enabled[T plugin.Plugin](p *config.Profile, made map[string]plugin.Plugin, point config.Point) []T {
	var out []T
	for _, name := range p.Enabled(point, func(name string) bool { _, ok := made[name].(T); return ok }) {
		if t, ok := made[name].(T); ok {
			out = append(out, t)
		}
	}
	return out
}

// mayEnqueue asks the plugins whether a pod may be active.
func (p *profile) mayEnqueue(pod *corev1.Pod) *plugin.Status {
	for _, pl := range p.preEnqueue {
		if st := pl.PreEnqueue(pod); !st.OK() {
			return refused(st, pl.Name())
		}
	}
	return nil
}
