// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"errors"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// The publishers that Published counts.
const (
	RootCA      = "root_ca_cert_publisher"
	TrustBundle = "clustertrustbundle_publisher"
)

func (s *Set) others() {
	s.taintDeletions = s.counter("taint_eviction_controller", "pod_deletions_total", "Total number of Pods deleted by TaintEvictionController since its start.")
	s.taintDelay = s.histogram("taint_eviction_controller", "pod_deletion_duration_seconds",
		"Latency, in seconds, between the time when a taint effect has been activated for the Pod and its deletion via TaintEvictionController.", delays())
	s.deviceDeletions = s.counter("device_taint_eviction_controller", "pod_deletions_total", "Total number of Pods deleted by DeviceTaintEvictionController since its start.")
	s.deviceDelay = s.histogram("device_taint_eviction_controller", "pod_deletion_duration_seconds",
		"Latency, in seconds, between the time when a device taint effect has been activated and a Pod's deletion via DeviceTaintEvictionController.", delays())
	s.collected = s.counters("pod_gc_collector", "force_delete_pods_total", "Number of pods that are being forcefully deleted since the Pod GC Controller started.", "namespace", "reason")
	s.collectErrors = s.counters("pod_gc_collector", "force_delete_pod_errors_total", "Number of errors encountered when forcefully deleting the pods since the Pod GC Controller started.", "namespace", "reason")
	s.claimsMade = s.counter("ephemeral_volume_controller", "create_total", "Number of PersistentVolumeClaim creation requests")
	s.claimsFailed = s.counter("ephemeral_volume_controller", "create_failures_total", "Number of PersistentVolumeClaim creation requests")
	s.published = map[string]syncs{
		RootCA: {s.counters(RootCA, "sync_total", "Number of namespace syncs happened in root ca cert publisher.", "code"),
			s.histograms(RootCA, "sync_duration_seconds", "Number of namespace syncs happened in root ca cert publisher.", exp(0.001, 2, 15), "code")},
		TrustBundle: {s.counters(TrustBundle, "sync_total", "Number of syncs that occurred in cluster trust bundle publisher.", "code"),
			s.histograms(TrustBundle, "sync_duration_seconds", "The time it took to sync a cluster trust bundle.", exp(0.001, 2, 15), "code")},
	}
	s.sliceSyncs = s.counters("endpoint_slice_controller", "syncs", "Number of EndpointSlice syncs", "result")
	s.mirrorTime = s.histogram("endpoint_slice_mirroring_controller", "endpoints_sync_duration", "Duration of syncEndpoints() in seconds", exp(0.001, 2, 15))
	s.garbageErrors = s.counter("garbagecollector_controller", "resources_sync_error_total", "Number of garbage collector resources sync errors")
	s.classes = s.counter("", "retroactive_storageclass_total", "Total number of retroactive StorageClass assignments to persistent volume claim")
	s.classErrors = s.counter("", "retroactive_storageclass_errors_total", "Total number of failed retroactive StorageClass assignments to persistent volume claim")

	s.forcedDetaches = s.counters("attach_detach_controller", "attachdetach_controller_forced_detaches", "Number of times the A/D Controller performed a forced detach", "reason")
	s.deviceClaims = s.counters("dynamic_resource_allocation", "resourceclaim_creates_total",
		"Number of ResourceClaims creation requests, categorized by creation status, admin access, and owning API group and kind (either Pod or scheduling.k8s.io/PodGroup)",
		"status", "admin_access", "owner_api_group", "owner_api_kind")
	s.managed = s.gauges("", "running_managed_controllers", "Indicates where instances of a controller are currently running", "name", "manager")

	const node = "node_collector"
	s.healthAll = s.histogram(node, "update_all_nodes_health_duration_seconds", "Duration in seconds for NodeController to update the health of all nodes.", exp(0.01, 4, 8))
	s.healthOne = s.histogram(node, "update_node_health_duration_seconds", "Duration in seconds for NodeController to update the health of a single node.", exp(0.001, 4, 8))
	s.zoneHealth = s.gauges(node, "zone_health", "Gauge measuring percentage of healthy nodes per zone.", "zone")
	s.zoneSize = s.gauges(node, "zone_size", "Gauge measuring number of registered Nodes per zones.", "zone")
	s.zoneUnhealthy = s.gauges(node, "unhealthy_nodes_in_zone", "Gauge measuring number of not Ready Nodes per zones.", "zone")
	s.zoneEvictions = s.counters(node, "evictions_total", "Number of Node evictions that happened since current instance of NodeController started.", "zone")
}

// PodEvicted observes a pod that left a tainted node, and how late.
func (s *Set) PodEvicted(due time.Time) {
	if s != nil {
		s.taintDeletions.Inc()
		s.taintDelay.Observe(since(due))
	}
}

// PodLeftDevice observes a pod that left a tainted device, and how late.
func (s *Set) PodLeftDevice(due time.Time) {
	if s != nil {
		s.deviceDeletions.Inc()
		s.deviceDelay.Observe(since(due))
	}
}

// PodCollected counts a pod deleted by force.
func (s *Set) PodCollected(namespace, reason string, err error) {
	if s != nil {
		s.collected.WithLabelValues(namespace, reason).Inc()
		if err != nil {
			s.collectErrors.WithLabelValues(namespace, reason).Inc()
		}
	}
}

// ClaimMade counts an attempt to make the claim of an ephemeral volume.
func (s *Set) ClaimMade(err error) {
	if s != nil {
		s.claimsMade.Inc()
		if err != nil {
			s.claimsFailed.Inc()
		}
	}
}

// Published counts a reconciliation of a publisher.
func (s *Set) Published(publisher string, began time.Time, err error) {
	if s == nil {
		return
	}
	code := "200"
	if err != nil {
		code = "500"
		if status := apierrors.APIStatus(nil); errors.As(err, &status) && status.Status().Code != 0 {
			code = strconv.Itoa(int(status.Status().Code))
		}
	}
	s.published[publisher].total.WithLabelValues(code).Inc()
	s.published[publisher].time.WithLabelValues(code).Observe(since(began))
}

// SlicesSynced counts a reconciliation of a Service's EndpointSlices.
func (s *Set) SlicesSynced(err error) {
	if s != nil {
		s.sliceSyncs.WithLabelValues(result(err)).Inc()
	}
}

// SliceChanged counts a write of an EndpointSlice: create, update or delete.
func (s *Set) SliceChanged(operation string) {
	if s != nil {
		s.ofServices.changes.WithLabelValues(operation).Inc()
	}
}

// Mirrored observes a reconciliation of Endpoints made by hand.
func (s *Set) Mirrored(began time.Time) {
	if s != nil {
		s.mirrorTime.Observe(since(began))
	}
}

// GarbageError counts a failure to learn what kinds there are.
func (s *Set) GarbageError() {
	if s != nil {
		s.garbageErrors.Inc()
	}
}

// ClassGiven counts a claim that got the default class late.
func (s *Set) ClassGiven(err error) {
	if s != nil {
		s.classes.Inc()
		if err != nil {
			s.classErrors.Inc()
		}
	}
}

// NodesChecked observes a round over all nodes.
func (s *Set) NodesChecked(began time.Time) {
	if s != nil {
		s.healthAll.Observe(since(began))
	}
}

// NodeChecked observes the look at one node.
func (s *Set) NodeChecked(began time.Time) {
	if s != nil {
		s.healthOne.Observe(since(began))
	}
}

// Zone says how a zone is.
func (s *Set) Zone(zone string, size, unhealthy int) {
	if s == nil {
		return
	}
	s.zoneSize.WithLabelValues(zone).Set(float64(size))
	s.zoneUnhealthy.WithLabelValues(zone).Set(float64(unhealthy))
	if size > 0 {
		s.zoneHealth.WithLabelValues(zone).Set(100 * float64(size-unhealthy) / float64(size))
	}
}

// NodeEvicted counts a node whose pods are to leave.
func (s *Set) NodeEvicted(zone string) {
	if s != nil {
		s.zoneEvictions.WithLabelValues(zone).Inc()
	}
}

// Running says that a manager runs a controller, or no more.
func (s *Set) Running(controller, manager string, runs bool) {
	if s == nil {
		return
	}
	n := 0.0
	if runs {
		n = 1
	}
	s.managed.WithLabelValues(controller, manager).Set(n)
}
