// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"errors"
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/controller/podstate"
)

// beyond says whether a ratio of what is to what should be asks for a change.
func (l *look) beyond(ratio float64) bool {
	up, down := l.settings.Tolerance, l.settings.Tolerance
	if r := l.rules(true); r != nil && r.Tolerance != nil {
		up = r.Tolerance.AsApproximateFloat64()
	}
	if r := l.rules(false); r != nil && r.Tolerance != nil {
		down = r.Tolerance.AsApproximateFloat64()
	}
	return ratio < 1-down || ratio > 1+up
}

func ceil(f float64) int32 { return int32(min(math.Ceil(f), math.MaxInt32)) }

// plainRatio compares the average of values with a goal.
func plainRatio(goal int64) func(map[string]value) (float64, int64, error) {
	return func(values map[string]value) (float64, int64, error) {
		total := int64(0)
		for _, v := range values {
			total += v.milli
		}
		average := total / int64(len(values))
		return float64(average) / float64(goal), average, nil
	}
}

// utilization compares what pods use with what they request.
func utilization(values map[string]value, requests map[string]int64, goal int32) (ratio float64, percent int32, average int64, err error) {
	used, requested, n := int64(0), int64(0), int64(0)
	for pod, v := range values {
		if request, ok := requests[pod]; ok {
			used, requested, n = used+v.milli, requested+request, n+1
		}
	}
	if requested == 0 {
		return 0, 0, 0, errors.New("no metrics returned matched known pods")
	}
	percent = int32(used * 100 / requested)
	return float64(percent) / float64(goal), percent, used / n, nil
}

// evaluate returns how many replicas would bring the ratio to one, and the
// average that was measured. Pods without a metric count against the change:
// as full when shrinking (full says what that is), as idle when growing.
func (l *look) evaluate(pods []*corev1.Pod, values map[string]value, name corev1.ResourceName, ratioOf func(map[string]value) (float64, int64, error), full func(pod string) int64) (int32, int64, error) {
	if len(pods) == 0 {
		return 0, 0, errors.New("no pods returned by selector while calculating replica count")
	}
	ready, unready, missing, ignored := l.group(pods, values, name)
	for _, names := range [][]string{unready, ignored} {
		for _, pod := range names {
			delete(values, pod)
		}
	}
	if len(values) == 0 {
		return 0, 0, errors.New("did not receive metrics for targeted pods (pods might be unready)")
	}
	ratio, average, err := ratioOf(values)
	if err != nil {
		return 0, 0, err
	}
	current := l.scale.Spec.Replicas
	idle := len(unready) > 0 && ratio > 1
	if !idle && len(missing) == 0 {
		if !l.beyond(ratio) {
			return current, average, nil
		}
		return ceil(ratio * float64(ready)), average, nil
	}
	for _, pod := range missing {
		if ratio < 1 {
			values[pod] = value{milli: full(pod)}
		} else {
			values[pod] = value{}
		}
	}
	if idle {
		for _, pod := range unready {
			values[pod] = value{}
		}
	}
	again, _, err := ratioOf(values)
	if err != nil {
		return 0, 0, err
	}
	if !l.beyond(again) || ratio < 1 && again > 1 || ratio > 1 && again < 1 {
		return current, average, nil
	}
	n := ceil(again * float64(len(values)))
	if again < 1 && n > current || again > 1 && n < current {
		return current, average, nil
	}
	return n, average, nil
}

// group says which pods' metrics count: ready is how many do.
func (l *look) group(pods []*corev1.Pod, values map[string]value, name corev1.ResourceName) (ready int, unready, missing, ignored []string) {
	for _, p := range pods {
		v, measured := values[p.Name]
		switch {
		case p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed:
			ignored = append(ignored, p.Name)
		case p.Status.Phase == corev1.PodPending:
			unready = append(unready, p.Name)
		case !measured:
			missing = append(missing, p.Name)
		case name == corev1.ResourceCPU && l.starting(p, v):
			unready = append(unready, p.Name)
		default:
			ready++
		}
	}
	return ready, unready, missing, ignored
}

// starting says whether a pod's use of the processor is still that of its start.
func (l *look) starting(p *corev1.Pod, v value) bool {
	if p.Status.StartTime == nil {
		return true
	}
	for i := range p.Status.Conditions {
		c := &p.Status.Conditions[i]
		if c.Type != corev1.PodReady {
			continue
		}
		if p.Status.StartTime.Add(l.settings.CPUInitialization).After(l.now) {
			return c.Status == corev1.ConditionFalse || v.at.Before(c.LastTransitionTime.Add(v.window))
		}
		return c.Status == corev1.ConditionFalse && p.Status.StartTime.Add(l.settings.InitialReadiness).After(c.LastTransitionTime.Time)
	}
	return true
}

// requestsOf returns what pods request of a resource, in thousandths.
func requestsOf(pods []*corev1.Pod, container string, name corev1.ResourceName) (map[string]int64, error) {
	out := map[string]int64{}
	for _, p := range pods {
		if container == "" && p.Spec.Resources != nil {
			if q, ok := p.Spec.Resources.Requests[name]; ok {
				out[p.Name] = q.MilliValue()
				continue
			}
		}
		total := int64(0)
		add := func(c *corev1.Container) error {
			if container != "" && c.Name != container {
				return nil
			}
			q, ok := c.Resources.Requests[name]
			if !ok {
				return fmt.Errorf("missing request for %s in container %s of Pod %s", name, c.Name, p.Name)
			}
			total += q.MilliValue()
			return nil
		}
		for i := range p.Spec.Containers {
			if err := add(&p.Spec.Containers[i]); err != nil {
				return nil, err
			}
		}
		for i := range p.Spec.InitContainers {
			c := &p.Spec.InitContainers[i]
			if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
				if err := add(c); err != nil {
					return nil, err
				}
			}
		}
		out[p.Name] = total
	}
	return out, nil
}

func countReady(pods []*corev1.Pod) (n int) {
	for _, p := range pods {
		if _, ok := podstate.Ready(p); ok && p.Status.Phase == corev1.PodRunning {
			n++
		}
	}
	return n
}
