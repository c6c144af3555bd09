// SPDX-License-Identifier: Apache-2.0

// Package featuregate knows the feature gates of the release that kaji serves:
// their names, stages and defaults, and which can no longer be changed. API
// server, controller manager, scheduler, proxy and node agent give it what their
// --feature-gates and their configuration say, and refuse to start on what
// upstream refuses. It never decides what a feature does: most are on for good,
// and a component asks for the few it can be without.
package featuregate

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

// table holds a gate a line, as the binaries of 1.37.2 tell of them in
// kubernetes_feature_enabled and when they are asked for the opposite.
//
//go:embed gates.txt
var table string

// gate is one line of the table.
type gate struct {
	name, stage string
	on, locked  bool
}

// known reads the table: it is asked once a start, and not kept.
func known() []gate {
	var out []gate
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) == 4 && f[0] != "#" {
			out = append(out, gate{name: f[0], stage: f[1], on: f[2] == "true", locked: f[3] == "locked"})
		}
	}
	return out
}

// Gates are the features of one component. The zero value has every default.
type Gates struct{ on map[string]bool }

// New judges what was said about gates: a name that is not known and a gate that
// is locked to its default are refused, in upstream's words.
func New(said map[string]bool) (Gates, error) {
	g := Gates{on: map[string]bool{}}
	defaults := map[string]gate{}
	for _, one := range known() {
		defaults[one.name] = one
		g.on[one.name] = one.on
		if all, ok := said[everyOf[one.stage]]; ok && !one.locked {
			g.on[one.name] = all
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(said)) {
		one, found := defaults[name]
		switch {
		case !found:
			errs = append(errs, fmt.Errorf("unrecognized feature gate: %s", name))
		case one.locked && said[name] != one.on:
			errs = append(errs, fmt.Errorf("cannot set feature gate %s to %t, feature is locked to %t", name, said[name], one.on))
		default:
			g.on[name] = said[name]
		}
	}
	return g, utilerrors.NewAggregate(errs)
}

// everyOf names the gate that speaks for all of a stage.
var everyOf = map[string]string{"ALPHA": "AllAlpha", "BETA": "AllBeta"}

// Parse is New for values that are still text.
func Parse(said map[string]string) (Gates, error) {
	values := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(said)) {
		on, err := strconv.ParseBool(said[name])
		if err != nil {
			return Gates{}, fmt.Errorf("invalid value of %s: %s, err: %w", name, said[name], err)
		}
		values[name] = on
	}
	return New(values)
}

// Enabled says whether a feature is on; what is not known is off.
func (g Gates) Enabled(name string) bool {
	return g.filled().on[name]
}

// filled gives the zero value its defaults.
func (g Gates) filled() Gates {
	if g.on == nil {
		g, _ = New(nil) // nothing that could be refused
	}
	return g
}

// Describe is part of prometheus.Collector.
func (g Gates) Describe(to chan<- *prometheus.Desc) { to <- enabled }

// Collect tells of every gate; a feature of general availability has no stage.
func (g Gates) Collect(to chan<- prometheus.Metric) {
	g = g.filled()
	for _, one := range known() {
		value := 0.0
		if g.on[one.name] {
			value = 1
		}
		stage := one.stage
		if stage == "GA" {
			stage = ""
		}
		to <- prometheus.MustNewConstMetric(enabled, prometheus.GaugeValue, value, one.name, stage)
	}
}

var enabled = prometheus.NewDesc("kubernetes_feature_enabled", "This metric records the data about the stage and enablement of a k8s feature.", []string{"name", "stage"}, nil)
