// SPDX-License-Identifier: Apache-2.0

package podsecurity

import (
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	psapi "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/metrics"
)

// recorder counts what the library does, by upstream's names. The library's
// own recorder wants one registry a process; servers have one each.
type recorder struct {
	evaluations, exemptions, errors *prometheus.CounterVec
	// privileged is the series of nearly every pod: looked up once.
	privileged map[string]prometheus.Counter
	// own is the newest version of the standards that this server knows.
	own psapi.Version
}

var _ metrics.Recorder = (*recorder)(nil)

func newRecorder() *recorder {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: "[ALPHA] " + help}, labels)
	}
	r := &recorder{
		evaluations: vec("pod_security_evaluations_total", "Number of policy evaluations that occurred, not counting ignored or exempt requests.",
			"decision", "policy_level", "policy_version", "mode", "request_operation", "resource", "subresource"),
		exemptions: vec("pod_security_exemptions_total", "Number of exempt requests, not counting ignored or out of scope requests.",
			"request_operation", "resource", "subresource"),
		errors: vec("pod_security_errors_total", "Number of errors preventing normal evaluation. Non-fatal errors may result in the latest restricted profile being used for evaluation.",
			"fatal", "request_operation", "resource", "subresource"),
		privileged: map[string]prometheus.Counter{}, own: psapi.GetAPIVersion(),
	}
	// Upstream shows these before anything happened.
	for _, op := range []string{"create", "update"} {
		r.privileged[op] = r.evaluations.WithLabelValues("allow", "privileged", "latest", "enforce", op, "pod", "")
		for _, resource := range []string{"pod", "controller"} {
			r.exemptions.WithLabelValues(op, resource, "")
		}
	}
	return r
}

// Collectors are the plug-in's metrics, for the server's registry.
func (p *Plugin) Collectors() []prometheus.Collector {
	return []prometheus.Collector{p.metrics.evaluations, p.metrics.exemptions, p.metrics.errors}
}

// RecordEvaluation implements metrics.Recorder.
func (r *recorder) RecordEvaluation(decision metrics.Decision, lv psapi.LevelVersion, mode metrics.Mode, a psapi.Attributes) {
	op, resource, sub := strings.ToLower(string(a.GetOperation())), resourceLabel(a.GetResource()), a.GetSubresource()
	version := "future"
	switch {
	case lv.Version.Latest() || lv.Level == psapi.LevelPrivileged:
		version = "latest"
	case !r.own.Older(lv.Version):
		version = lv.Version.String()
	}
	if c := r.privileged[op]; c != nil && lv.Level == psapi.LevelPrivileged && decision == metrics.DecisionAllow &&
		mode == metrics.ModeEnforce && resource == "pod" && sub == "" {
		c.Inc()
		return
	}
	r.evaluations.WithLabelValues(string(decision), string(lv.Level), version, string(mode), op, resource, sub).Inc()
}

// RecordExemption implements metrics.Recorder.
func (r *recorder) RecordExemption(a psapi.Attributes) {
	r.exemptions.WithLabelValues(strings.ToLower(string(a.GetOperation())), resourceLabel(a.GetResource()), a.GetSubresource()).Inc()
}

// RecordError implements metrics.Recorder.
func (r *recorder) RecordError(fatal bool, a psapi.Attributes) {
	r.errors.WithLabelValues(strconv.FormatBool(fatal), strings.ToLower(string(a.GetOperation())), resourceLabel(a.GetResource()), a.GetSubresource()).Inc()
}

func resourceLabel(r schema.GroupVersionResource) string {
	switch r.GroupResource() {
	case corev1.Resource("pods"):
		return "pod"
	case corev1.Resource("namespaces"):
		return "namespace"
	}
	return "controller"
}
