// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func (s *Set) workloads() {
	const job = "job_controller"
	s.jobSyncTime = s.histograms(job, "job_sync_duration_seconds", "The time it took to sync a job", exp(0.004, 2, 15), "completion_mode", "result", "action")
	s.jobSyncs = s.counters(job, "job_syncs_total", "The number of job syncs", "completion_mode", "result", "action")
	s.jobsFinished = s.counters(job, "jobs_finished_total", "The number of finished jobs", "completion_mode", "result", "reason")
	s.jobPodsFinished = s.counters(job, "job_pods_finished_total", "The number of finished Pods that are fully tracked", "completion_mode", "result")
	s.jobPodsMade = s.counters(job, "job_pods_creation_total", "The number of Pods created by the Job controller, by the reason and whether that succeeded.", "reason", "status")
	s.jobFinalizers = s.counters(job, "terminated_pods_tracking_finalizer_total", "The number of terminated pods (phase=Failed|Succeeded) that have the finalizer batch.kubernetes.io/job-tracking.", "event")
	s.indexesFinished = s.counters(job, "job_finished_indexes_total", "The number of finished indexes, by how they ended and whether the Job limits failures per index.", "status", "backoffLimit")
	s.failuresByPolicy = s.counters(job, "pod_failures_handled_by_failure_policy_total", "The number of failed Pods handled by failure policy, by the action of the rule that matched.", "action")
	s.otherJobs = s.counters(job, "jobs_by_external_controller_total", "The number of Jobs managed by an external controller", "controller_name")
	s.cronSkew = s.histogram("cronjob_controller", "job_creation_skew_duration_seconds", "Time between when a cronjob is scheduled to be run, and when the corresponding job is created", exp(1, 2, 10))
	s.ttlDelay = s.histogram("ttl_after_finished_controller", "job_deletion_duration_seconds", "The time it took to delete the job since it became eligible for deletion", exp(0.1, 2, 14))

	const hpa = "horizontal_pod_autoscaler_controller"
	s.scalings = s.counters(hpa, "reconciliations_total", "Number of reconciliations of HPA controller.", "action", "error")
	s.scalingTime = s.histograms(hpa, "reconciliation_duration_seconds", "The time(seconds) that the HPA controller takes to reconcile once.", exp(0.001, 2, 15), "action", "error")
	s.metricReads = s.counters(hpa, "metric_computation_total", "Number of metric computations. The label 'action' should be either 'scale_down', 'scale_up', or 'none'. "+
		"Also, the label 'error' should be either 'spec', 'internal', or 'none'. The label 'metric_type' corresponds to HPA.spec.metrics[*].type", "action", "error", "metric_type")
	s.metricTime = s.histograms(hpa, "metric_computation_duration_seconds", "The time(seconds) that the HPA controller takes to calculate one metric. The label 'action' should be either 'scale_down', 'scale_up', or 'none'. "+
		"The label 'error' should be either 'spec', 'internal', or 'none'. The label 'metric_type' corresponds to HPA.spec.metrics[*].type", exp(0.001, 2, 15), "action", "error", "metric_type")
	s.autoscalers = s.gauges(hpa, "num_horizontal_pod_autoscalers", "Current number of controlled HPA objects.").WithLabelValues()
	s.desired = s.gauges(hpa, "desired_replicas", "Current desired replica count for HPA objects.", "namespace", "hpa_name")

	s.ageRatio = s.histogram("replicaset_controller", "sorting_deletion_age_ratio", "The ratio of chosen deleted pod's ages to the current youngest pod's age (at the time). Should be <2. "+
		"The intent of this metric is to measure the rough efficacy of the sorting (and deletion) of pods when a replicaset scales down. This only considers Ready pods when calculating and reporting.", exp(0.25, 2, 6))
	const set = "statefulset_controller"
	s.maxUnavailable = s.gauges(set, "statefulset_max_unavailable", "Maximum number of unavailable pods allowed during StatefulSet rolling updates", "statefulset_namespace", "statefulset_name", "pod_management_policy")
	s.unavailable = s.gauges(set, "statefulset_unavailable_replicas", "Current number of unavailable pods in StatefulSet", "statefulset_namespace", "statefulset_name", "pod_management_policy")
}

// The controllers that look at nothing while their informers do not show what
// they wrote, with what they reconcile.
var waiting = map[string]string{"daemonset_controller": "DaemonSet", "job_controller": "Job", "replicaset_controller": "ReplicaSet", "statefulset_controller": "StatefulSet"}

func (s *Set) skipping() {
	s.skips = map[string]*prometheus.CounterVec{}
	for subsystem, kind := range waiting {
		s.skips[subsystem] = s.counters(subsystem, "stale_sync_skips_total", "Total number of "+kind+" syncs skipped due to a stale watch cache.", "group", "resource")
	}
}

// StaleSkip counts a reconciliation that has to wait until the informer of pods
// shows what the controller, named by its metrics' subsystem, did.
func (s *Set) StaleSkip(subsystem string) {
	if s != nil {
		s.skips[subsystem].WithLabelValues("", "pods").Inc()
	}
}

// JobOfOther counts a Job that another controller runs.
func (s *Set) JobOfOther(controller string) {
	if s != nil {
		s.otherJobs.WithLabelValues(controller).Inc()
	}
}

func result(err error) string {
	if err != nil {
		return "error"
	}
	return "success"
}

func since(t time.Time) float64 { return max(0, time.Since(t).Seconds()) }

// JobSynced counts a reconciliation of a Job; action says what it did to pods.
func (s *Set) JobSynced(mode, action string, began time.Time, err error) {
	if s != nil {
		s.jobSyncTime.WithLabelValues(mode, result(err), action).Observe(since(began))
		s.jobSyncs.WithLabelValues(mode, result(err), action).Inc()
	}
}

// IndexesFinished counts indexes that ended: "succeeded" or "failed"; perIndex
// says that the Job limits failures per index.
func (s *Set) IndexesFinished(status string, perIndex bool, n int) {
	if s == nil || n == 0 {
		return
	}
	limit := "global"
	if perIndex {
		limit = "perIndex"
	}
	s.indexesFinished.WithLabelValues(status, limit).Add(float64(n))
}

// FailureByPolicy counts a failed pod that a rule of the Job's policy matched.
func (s *Set) FailureByPolicy(action string) {
	if s != nil {
		s.failuresByPolicy.WithLabelValues(action).Inc()
	}
}

// JobFinished counts a Job that ended, for a reason.
func (s *Set) JobFinished(mode, result, reason string) {
	if s != nil {
		s.jobsFinished.WithLabelValues(mode, result, reason).Inc()
	}
}

// JobPodsFinished counts pods that are counted in their Job.
func (s *Set) JobPodsFinished(mode, result string, n int) {
	if s != nil && n > 0 {
		s.jobPodsFinished.WithLabelValues(mode, result).Add(float64(n))
	}
}

// JobPodMade counts an attempt to make a pod.
func (s *Set) JobPodMade(reason string, err error) {
	if s != nil {
		status := "succeeded"
		if err != nil {
			status = "failed"
		}
		s.jobPodsMade.WithLabelValues(reason, status).Inc()
	}
}

// JobPodTracked counts ended pods that have the finalizer, and that lose it.
func (s *Set) JobPodTracked(event string) {
	if s != nil {
		s.jobFinalizers.WithLabelValues(event).Inc()
	}
}

// CronJobMade observes how late a Job was made.
func (s *Set) CronJobMade(due time.Time) {
	if s != nil {
		s.cronSkew.Observe(since(due))
	}
}

// JobExpired observes how late an ended Job was deleted.
func (s *Set) JobExpired(due time.Time) {
	if s != nil {
		s.ttlDelay.Observe(since(due))
	}
}

// Scaled counts a reconciliation of an autoscaler.
func (s *Set) Scaled(action, failure string, began time.Time) {
	if s != nil {
		s.scalings.WithLabelValues(action, failure).Inc()
		s.scalingTime.WithLabelValues(action, failure).Observe(since(began))
	}
}

// MetricRead counts the evaluation of one metric of an autoscaler.
func (s *Set) MetricRead(metricType, action, failure string, began time.Time) {
	if s != nil {
		s.metricReads.WithLabelValues(action, failure, metricType).Inc()
		s.metricTime.WithLabelValues(action, failure, metricType).Observe(since(began))
	}
}

// Autoscalers says how many autoscalers there are.
func (s *Set) Autoscalers(n int) {
	if s != nil {
		s.autoscalers.Set(float64(n))
	}
}

// DesiredReplicas says what an autoscaler wants; negative forgets it.
func (s *Set) DesiredReplicas(namespace, name string, n int32) {
	if s == nil {
		return
	}
	if n < 0 {
		s.desired.DeleteLabelValues(namespace, name)
		return
	}
	s.desired.WithLabelValues(namespace, name).Set(float64(n))
}

// DeletedAge observes the age of a ready pod chosen for deletion over that of
// the youngest.
func (s *Set) DeletedAge(ratio float64) {
	if s != nil {
		s.ageRatio.Observe(ratio)
	}
}

// StatefulSet says how many pods of a set may be and are unavailable.
func (s *Set) StatefulSet(namespace, name, policy string, may, are int) {
	if s != nil {
		s.maxUnavailable.WithLabelValues(namespace, name, policy).Set(float64(may))
		s.unavailable.WithLabelValues(namespace, name, policy).Set(float64(are))
	}
}

// StatefulSetGone forgets a set.
func (s *Set) StatefulSetGone(namespace, name string) {
	if s != nil {
		of := prometheus.Labels{"statefulset_namespace": namespace, "statefulset_name": name}
		s.maxUnavailable.DeletePartialMatch(of)
		s.unavailable.DeletePartialMatch(of)
	}
}
