// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
)

// longestWindow bounds what is remembered: no window or period is longer.
const longestWindow = time.Hour

// memory is what one autoscaler remembers of earlier looks.
type memory struct {
	recommended []sample
	up, down    []sample
}

type sample struct {
	at time.Time
	n  int32
}

// begin notes where the target stood at the first look.
func (m *memory) begin(current int32, now time.Time) {
	if len(m.recommended) == 0 {
		m.recommended = []sample{{now, current}}
	}
}

func (m *memory) scaled(from, to int32, now time.Time) {
	if to > from {
		m.up = append(recent(m.up, now, longestWindow), sample{now, to - from})
	} else {
		m.down = append(recent(m.down, now, longestWindow), sample{now, from - to})
	}
}

// recent returns the samples that are younger than a window.
func recent(samples []sample, now time.Time, window time.Duration) []sample {
	for len(samples) > 0 && !samples[0].at.After(now.Add(-window)) {
		samples = samples[1:]
	}
	return samples
}

func sum(samples []sample) (n int32) {
	for _, s := range samples {
		n += s.n
	}
	return n
}

// normalize makes of what the metrics ask for what may be done now: no sooner
// than the windows, no faster than the policies, no further than the bounds.
func (l *look) normalize(current, wanted int32) int32 {
	stable, reason, message := l.stabilize(current, wanted)
	if stable == wanted {
		reason, message = "ReadyForNewScale", "recommended size matches current size"
	}
	l.condition(autoscalingv2.AbleToScale, corev1.ConditionTrue, reason, "%s", message)
	desired, reason, message := l.limit(current, stable)
	limited := corev1.ConditionTrue
	if desired == stable {
		limited = corev1.ConditionFalse
	}
	l.condition(autoscalingv2.ScalingLimited, limited, reason, "%s", message)
	return desired
}

// rules are the scaling rules of a direction; nil are upstream's old ones.
func (l *look) rules(up bool) *autoscalingv2.HPAScalingRules {
	b := l.hpa.Spec.Behavior
	switch {
	case b == nil:
		return nil
	case up:
		return b.ScaleUp
	}
	return b.ScaleDown
}

func (l *look) window(up bool) time.Duration {
	if r := l.rules(up); r != nil && r.StabilizationWindowSeconds != nil {
		return time.Duration(*r.StabilizationWindowSeconds) * time.Second
	}
	if up {
		return 0
	}
	return l.settings.DownscaleStabilization
}

// stabilize takes the most careful of the recommendations of the window.
func (l *look) stabilize(current, wanted int32) (stable int32, reason, message string) {
	up := wanted >= current
	better := func(a, b int32) int32 { return max(a, b) }
	reason, message = "ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation"
	if up && l.hpa.Spec.Behavior != nil {
		better = func(a, b int32) int32 { return min(a, b) }
		reason, message = "ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation"
	}
	window := l.window(up && l.hpa.Spec.Behavior != nil)
	l.memory.recommended = recent(l.memory.recommended, l.now, max(l.window(true), l.window(false)))
	stable = wanted
	for _, s := range l.memory.recommended {
		if s.at.After(l.now.Add(-window)) {
			stable = better(stable, s.n)
		}
	}
	l.memory.recommended = append(l.memory.recommended, sample{l.now, wanted})
	return stable, reason, message
}

// limit applies the policies and the bounds.
func (l *look) limit(current, wanted int32) (n int32, reason, message string) {
	if l.hpa.Spec.Behavior == nil {
		return l.limitOld(current, wanted)
	}
	if wanted > current {
		most, reason, message := l.hpa.Spec.MaxReplicas, "TooManyReplicas", "the desired replica count is more than the maximum replica count"
		if allowed := max(current, l.upLimit(current)); allowed < most {
			most, reason, message = allowed, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"
		}
		if wanted > most {
			return most, reason, message
		}
	} else if wanted < current {
		least, reason, message := l.minReplicas(), "TooFewReplicas", "the desired replica count is less than the minimum replica count"
		if allowed := min(current, l.downLimit(current)); allowed > least {
			least, reason, message = allowed, "ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate"
		}
		if wanted < least {
			return least, reason, message
		}
	}
	return wanted, "DesiredWithinRange", "the desired count is within the acceptable range"
}

// limitOld is what held before behaviours could be told: at most the double, or
// four.
func (l *look) limitOld(current, wanted int32) (n int32, reason, message string) {
	most, reason, message := l.hpa.Spec.MaxReplicas, "TooManyReplicas", "the desired replica count is more than the maximum replica count"
	if allowed := max(2*current, 4); most > allowed {
		most, reason, message = allowed, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"
	}
	switch {
	case wanted < l.minReplicas():
		return l.minReplicas(), "TooFewReplicas", "the desired replica count is less than the minimum replica count"
	case wanted > most:
		return most, reason, message
	}
	return wanted, "DesiredWithinRange", "the desired count is within the acceptable range"
}

func selected(r *autoscalingv2.HPAScalingRules) autoscalingv2.ScalingPolicySelect {
	if r.SelectPolicy != nil {
		return *r.SelectPolicy
	}
	return autoscalingv2.MaxChangePolicySelect
}

// upLimit is the most replicas that the policies allow now.
func (l *look) upLimit(current int32) int32 {
	r := l.rules(true)
	if r == nil || selected(r) == autoscalingv2.DisabledPolicySelect {
		return current
	}
	most := selected(r) == autoscalingv2.MaxChangePolicySelect
	result := int32(math.MaxInt32)
	if most {
		result = math.MinInt32
	}
	for _, p := range r.Policies {
		window := time.Duration(p.PeriodSeconds) * time.Second
		start := current - sum(recent(l.memory.up, l.now, window)) + sum(recent(l.memory.down, l.now, window))
		allowed := start + p.Value
		if p.Type == autoscalingv2.PercentScalingPolicy {
			allowed = int32(math.Ceil(float64(start) * (1 + float64(p.Value)/100)))
		}
		if most {
			result = max(result, allowed)
		} else {
			result = min(result, allowed)
		}
	}
	return result
}

// downLimit is the fewest replicas that the policies allow now.
func (l *look) downLimit(current int32) int32 {
	r := l.rules(false)
	if r == nil || selected(r) == autoscalingv2.DisabledPolicySelect {
		return current
	}
	most := selected(r) == autoscalingv2.MaxChangePolicySelect
	result := int32(math.MinInt32)
	if most {
		result = math.MaxInt32
	}
	for _, p := range r.Policies {
		window := time.Duration(p.PeriodSeconds) * time.Second
		start := current - sum(recent(l.memory.up, l.now, window)) + sum(recent(l.memory.down, l.now, window))
		allowed := start - p.Value
		if p.Type == autoscalingv2.PercentScalingPolicy {
			allowed = int32(float64(start) * (1 - float64(p.Value)/100))
		}
		if most {
			result = min(result, allowed)
		} else {
			result = max(result, allowed)
		}
	}
	return result
}
