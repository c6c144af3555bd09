// SPDX-License-Identifier: Apache-2.0

package metricsapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// most bounds a kubelet's answer; 500 pods take less than one MiB.
const most = 64 << 20

// point is what something used up to a moment.
type point struct {
	at     time.Time // of the processor time; zero when it is not known
	cpu    float64   // core-seconds since the start
	memory float64   // working set in bytes, negative when it is not known
	start  time.Time // zero when it is not known
}

// sample is what a node and its containers used when they were asked.
type sample struct {
	node point
	pods map[podKey]map[string]point // by container
}

type podKey struct{ namespace, name string }

// path is where kubelets tell what is used, to the millisecond, in the form that
// the metrics server reads.
const path = "/metrics/resource"

// ask reads what a node uses from its kubelet.
func (s *Source) ask(ctx context.Context, node string) (*sample, error) {
	answer, err := s.cfg.Kubelet(ctx, node, path)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the kubelet answers %s", answer.Status)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(answer.Body, most))
	if err != nil {
		return nil, err
	}
	return sampleOf(families), nil
}

func sampleOf(families map[string]*dto.MetricFamily) *sample {
	out := &sample{node: point{memory: -1}, pods: map[podKey]map[string]point{}}
	each := func(name string, add func(p *point, value float64, at time.Time)) {
		for _, m := range families[name].GetMetric() {
			at := time.UnixMilli(m.GetTimestampMs())
			if m.TimestampMs == nil {
				at = time.Now()
			}
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
			out.change(m, func(p *point) { add(p, value, at) })
		}
	}
	cpu := func(p *point, value float64, at time.Time) { p.cpu, p.at = value, at }
	memory := func(p *point, value float64, _ time.Time) { p.memory = value }
	each("node_cpu_usage_seconds_total", cpu)
	each("node_memory_working_set_bytes", memory)
	each("container_cpu_usage_seconds_total", cpu)
	each("container_memory_working_set_bytes", memory)
	each("container_start_time_seconds", func(p *point, value float64, _ time.Time) {
		p.start = time.UnixMilli(int64(value * 1000))
	})
	return out
}

// change changes the point that a metric is about: the node's where it names no
// container.
func (s *sample) change(m *dto.Metric, change func(*point)) {
	var at podKey
	container := ""
	for _, l := range m.GetLabel() {
		switch l.GetName() {
		case "namespace":
			at.namespace = l.GetValue()
		case "pod":
			at.name = l.GetValue()
		case "container":
			container = l.GetValue()
		}
	}
	if container == "" {
		change(&s.node)
		return
	}
	if s.pods[at] == nil {
		s.pods[at] = map[string]point{}
	}
	p, ok := s.pods[at][container]
	if !ok {
		p.memory = -1
	}
	change(&p)
	s.pods[at][container] = p
}

// use is what was used between two moments.
type use struct {
	at     time.Time
	window time.Duration
	list   corev1.ResourceList
}

// between compares two points; ok is false when nothing can be said.
func between(last, before point) (u use, ok bool) {
	if last.at.IsZero() || last.memory < 0 {
		return use{}, false
	}
	u.at = last.at
	rate := 0.0
	life := last.at.Sub(last.start)
	switch {
	case !before.at.IsZero() && last.at.After(before.at) && last.cpu >= before.cpu && !last.start.After(before.at):
		u.window = last.at.Sub(before.at)
		rate = (last.cpu - before.cpu) / u.window.Seconds()
	case !last.start.IsZero() && life > time.Second && life < old:
		// It is so young that all its life is the window.
		u.window = life
		rate = last.cpu / life.Seconds()
	default:
		return use{}, false
	}
	u.list = corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(int64(rate*1e9), resource.Nano),
		corev1.ResourceMemory: *resource.NewQuantity(int64(last.memory), resource.BinarySI),
	}
	return u, true
}
