// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"
)

// tally is a gauge of how many things have the same labels, counted when
// somebody reads it.
type tally struct {
	desc  *prometheus.Desc
	count func(one func(labels ...string))
}

func newTally(name, help string, labels []string, count func(one func(labels ...string))) tally {
	return tally{prometheus.NewDesc(name, help, labels, nil), count}
}

// Describe implements prometheus.Collector.
func (t tally) Describe(to chan<- *prometheus.Desc) { to <- t.desc }

// Collect implements prometheus.Collector.
func (t tally) Collect(to chan<- prometheus.Metric) {
	const between = "\x00"
	counts := map[string]float64{}
	t.count(func(labels ...string) { counts[strings.Join(labels, between)]++ })
	for labels, n := range counts {
		to <- prometheus.MustNewConstMetric(t.desc, prometheus.GaugeValue, n, strings.Split(labels, between)...)
	}
}

// PluginOf names what mounts a volume, as upstream's controllers do: one of the
// plug-ins that they know, of CSI with its driver.
func PluginOf(v *corev1.PersistentVolumeSource) string {
	switch {
	case v.CSI != nil:
		return "kubernetes.io/csi:" + v.CSI.Driver
	case v.HostPath != nil:
		return "kubernetes.io/host-path"
	case v.NFS != nil:
		return "kubernetes.io/nfs"
	case v.ISCSI != nil:
		return "kubernetes.io/iscsi"
	case v.FC != nil:
		return "kubernetes.io/fc"
	}
	return "N/A"
}

// Volumes has volumes and claims counted, from where the functions list them.
func (s *Set) Volumes(volumes func() []*corev1.PersistentVolume, claims func() []*corev1.PersistentVolumeClaim) {
	if s == nil {
		return
	}
	count := func(bound bool) func(one func(labels ...string)) {
		return func(one func(labels ...string)) {
			for _, v := range volumes() {
				if (v.Status.Phase == corev1.VolumeBound) == bound {
					one(v.Spec.StorageClassName)
				}
			}
		}
	}
	countClaims := func(bound bool) func(one func(labels ...string)) {
		return func(one func(labels ...string)) {
			for _, claim := range claims() {
				attributes := ""
				if name := claim.Spec.VolumeAttributesClassName; name != nil {
					attributes = *name
				}
				if (claim.Status.Phase == corev1.ClaimBound) == bound {
					one(claim.Namespace, storagehelpers.GetPersistentVolumeClaimClass(claim), attributes)
				}
			}
		}
	}
	class, claim := []string{"storage_class"}, []string{"namespace", "storage_class", "volume_attributes_class"}
	s.registry.MustRegister(
		newTally("pv_collector_total_pv_count", "Gauge measuring total number of persistent volumes", []string{"plugin_name", "volume_mode"}, func(one func(...string)) {
			for _, v := range volumes() {
				mode := corev1.PersistentVolumeFilesystem
				if v.Spec.VolumeMode != nil {
					mode = *v.Spec.VolumeMode
				}
				one(PluginOf(&v.Spec.PersistentVolumeSource), string(mode))
			}
		}),
		newTally("pv_collector_bound_pv_count", "Gauge measuring number of persistent volume currently bound", class, count(true)),
		newTally("pv_collector_unbound_pv_count", "Gauge measuring number of persistent volume currently unbound", class, count(false)),
		newTally("pv_collector_bound_pvc_count", "Gauge measuring number of persistent volume claim currently bound", claim, countClaims(true)),
		newTally("pv_collector_unbound_pvc_count", "Gauge measuring number of persistent volume claim currently unbound", claim, countClaims(false)))
}

// ResourceClaimMade counts an attempt to make a claim of devices.
func (s *Set) ResourceClaimMade(claim *resourcev1.ResourceClaim, err error) {
	if s == nil {
		return
	}
	status, group, kind := "success", "", ""
	if err != nil {
		status = "failure"
	}
	if owner := metav1.GetControllerOfNoCopy(claim); owner != nil {
		kind = owner.Kind
		if before, _, found := strings.Cut(owner.APIVersion, "/"); found {
			group = before
		}
	}
	s.deviceClaims.WithLabelValues(status, adminAccess(claim), group, kind).Inc()
}

// ResourceClaims has claims of devices counted.
func (s *Set) ResourceClaims(claims func() []*resourcev1.ResourceClaim) {
	if s == nil {
		return
	}
	s.registry.MustRegister(newTally("dynamic_resource_allocation_resource_claims", "Number of ResourceClaims, categorized by allocation status, admin access, and source. "+
		"Source can be 'resource_claim_template' (created from a template), 'extended_resource' (extended resources), or empty (manually created by a user).",
		[]string{"allocated", "admin_access", "source"}, func(one func(...string)) {
			for _, claim := range claims() {
				allocated, source := "false", ""
				if claim.Status.Allocation != nil {
					allocated = "true"
				}
				switch {
				case claim.Annotations[resourcev1.ExtendedResourceClaimAnnotation] == "true":
					source = "extended_resource"
				case claim.Annotations[resourcev1.PodResourceClaimAnnotation] != "":
					source = "resource_claim_template"
				}
				one(allocated, adminAccess(claim), source)
			}
		}))
}

// adminAccess says whether a claim asks for devices that others use.
func adminAccess(claim *resourcev1.ResourceClaim) string {
	for i := range claim.Spec.Devices.Requests {
		if exactly := claim.Spec.Devices.Requests[i].Exactly; exactly != nil && exactly.AdminAccess != nil && *exactly.AdminAccess {
			return "true"
		}
	}
	return "false"
}

// Attachments has the volumes of attachable kinds counted: used tells the node and
// the plug-in of each that a pod uses, wanted and attached the plug-in of each pair
// of volume and node.
func (s *Set) Attachments(used func(one func(labels ...string)), wanted, attached func(plugin func(name string))) {
	if s == nil {
		return
	}
	s.registry.MustRegister(
		newTally("storage_count_attachable_volumes_in_use", "Measure number of volumes in use", []string{"node", "volume_plugin"}, used),
		newTally("attachdetach_controller_total_volumes", "Number of volumes in A/D Controller", []string{"plugin_name", "state"}, func(one func(...string)) {
			wanted(func(plugin string) { one(plugin, "desired_state_of_world") })
			attached(func(plugin string) { one(plugin, "actual_state_of_world") })
		}))
}

// DetachedByForce counts a volume that was detached although its node may still
// use it: for "timeout", or "out-of-service".
func (s *Set) DetachedByForce(reason string) {
	if s != nil {
		s.forcedDetaches.WithLabelValues(reason).Inc()
	}
}
