// SPDX-License-Identifier: Apache-2.0

package scheduler_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
)

func labelled(k, v string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels = map[string]string{k: v} }
}

func inZone(zone string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = zone }
}

func term(topology, k, v string) corev1.PodAffinityTerm {
	return corev1.PodAffinityTerm{TopologyKey: topology, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{k: v}}}
}

func away(topology, k, v string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term(topology, k, v)}}}
	}
}

func near(topology, k, v string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term(topology, k, v)}}}
	}
}

func TestPodAntiAffinity(t *testing.T) {
	w := start(t)
	create(w, node("n1", "4"))
	create(w, pod("a", "", labelled("x", "y")))
	w.lands("a", "n1")
	create(w, pod("b", "", labelled("x", "y"), away(corev1.LabelHostname, "x", "y")))
	w.refused("b", "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules. "+
		"preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.")
	create(w, node("n2", "4"))
	w.lands("b", "n2")
	create(w, pod("c", "", labelled("x", "y"), func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "n2"} }))
	w.refused("c", "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) didn't satisfy existing pods anti-affinity rules. "+
		"preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling.")
	if err := client.For[*corev1.Pod](w).Delete(t.Context(), "default", "b", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		t.Fatal(err)
	}
	w.lands("c", "n2")
}

func TestPodAffinity(t *testing.T) {
	w := start(t)
	create(w, node("n1", "4", inZone("a")))
	create(w, node("n2", "4", inZone("a")))
	create(w, node("n3", "4", inZone("b")))
	create(w, pod("alone", "", near(corev1.LabelTopologyZone, "app", "db")))
	w.refused("alone", "0/3 nodes are available: 3 node(s) didn't match pod affinity rules. "+
		"preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.")
	create(w, pod("db", "", labelled("app", "db"), func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "n3"} }))
	w.lands("alone", "n3")
	// The first of a group that wants to be together may go anywhere.
	create(w, pod("first", "", labelled("app", "group"), near(corev1.LabelTopologyZone, "app", "group")))
	w.lands("first", "n1", "n2", "n3")
	zone := map[string]string{"n1": "a", "n2": "a", "n3": "b"}
	home := zone[w.pod("first").Spec.NodeName]
	for i := range 4 {
		name := fmt.Sprint("member-", i)
		create(w, pod(name, "", labelled("app", "group"), near(corev1.LabelTopologyZone, "app", "group")))
		w.lands(name, "n1", "n2", "n3")
		if got := zone[w.pod(name).Spec.NodeName]; got != home {
			t.Errorf("%s is in zone %s, its group in %s", name, got, home)
		}
	}
}

func spread(key string, skew int32, when corev1.UnsatisfiableConstraintAction) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Labels = map[string]string{"app": "web"}
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, corev1.TopologySpreadConstraint{
			MaxSkew: skew, TopologyKey: key, WhenUnsatisfiable: when, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}})
	}
}

func TestTopologySpread(t *testing.T) {
	w := start(t)
	create(w, node("n1", "4", inZone("a")))
	create(w, node("n2", "4", inZone("b")))
	count := map[string]int{}
	for i := range 6 {
		name := fmt.Sprint("p-", i)
		create(w, pod(name, "", spread(corev1.LabelTopologyZone, 1, corev1.DoNotSchedule)))
		w.lands(name, "n1", "n2")
		count[w.pod(name).Spec.NodeName]++
	}
	if count["n1"] != 3 || count["n2"] != 3 {
		t.Errorf("pods per node: %v, want 3 each", count)
	}
	create(w, node("n3", "4"))
	create(w, pod("stuck", "3900m", spread(corev1.LabelTopologyZone, 1, corev1.DoNotSchedule), func(p *corev1.Pod) {
		p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "n3"}
	}))
	w.refused("stuck", "0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label), "+
		"2 node(s) didn't match Pod's node affinity/selector. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.")
}

// An empty selector selects no pod for spreading, whatever it selects elsewhere.
func TestSpreadWithoutSelectorCountsNobody(t *testing.T) {
	w := start(t)
	create(w, node("n1", "4", inZone("a")))
	create(w, node("n2", "4", inZone("b")))
	for i := range 3 {
		name := fmt.Sprint("p-", i)
		create(w, pod(name, "", spread(corev1.LabelTopologyZone, 1, corev1.DoNotSchedule), func(p *corev1.Pod) {
			p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "n1"}
			p.Spec.TopologySpreadConstraints[0].LabelSelector = &metav1.LabelSelector{}
			p.Spec.TopologySpreadConstraints[0].NodeAffinityPolicy = ptr.To(corev1.NodeInclusionPolicyIgnore)
		}))
		w.lands(name, "n1")
	}
}

func TestSoftSpreadPrefersTheEmptierHost(t *testing.T) {
	w := start(t)
	for i := range 3 {
		create(w, node(fmt.Sprint("n", i), "4"))
	}
	count := map[string]int{}
	for i := range 6 {
		name := fmt.Sprint("p-", i)
		create(w, pod(name, "10m", spread(corev1.LabelHostname, 1, corev1.ScheduleAnyway)))
		w.lands(name, "n0", "n1", "n2")
		count[w.pod(name).Spec.NodeName]++
	}
	for n, c := range count {
		if c != 2 {
			t.Errorf("%s has %d pods: %v", n, c, count)
		}
	}
}

// of gives a pod its priority, as admission resolves it from a class.
func of(value int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Priority = &value }
}

func TestPreemption(t *testing.T) {
	w := start(t)
	create(w, node("n1", "1"))
	create(w, pod("low", "800m"))
	w.lands("low", "n1")
	create(w, pod("patient", "800m", of(1000), func(p *corev1.Pod) { p.Spec.PreemptionPolicy = ptr.To(corev1.PreemptNever) }))
	w.refused("patient", "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.")
	create(w, pod("high", "800m", of(1000)))
	w.refused("high", "0/1 nodes are available: 1 Insufficient cpu. preemption: found a potential placement for pod on node n1, preempting 1 victims")
	if got := w.pod("high").Status.NominatedNodeName; got != "n1" {
		t.Errorf("nominated node is %q, want n1", got)
	}
	w.eventually("the victim being deleted", func() bool {
		p, err := client.For[*corev1.Pod](w).Get(t.Context(), "default", "low")
		return apierrors.IsNotFound(err) || err == nil && p.DeletionTimestamp != nil
	})
	// No kubelet ends the victim; the test does.
	_ = client.For[*corev1.Pod](w).Delete(t.Context(), "default", "low", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
	w.lands("high", "n1")
}

// What is said of a node is what is wrong with it when the nominated pods are
// counted in, even where the node does not suit without them either.
func TestNominatedPodsComeFirst(t *testing.T) {
	w := start(t)
	create(w, node("n1", "1"))
	create(w, pod("low", "500m"))
	w.lands("low", "n1")
	create(w, pod("high", "800m", of(1000)))
	w.eventually("the nomination", func() bool { return w.pod("high").Status.NominatedNodeName == "n1" })
	create(w, pod("late", "200m", near(corev1.LabelHostname, "app", "nobody")))
	w.refused("late", "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.")
}

func TestPreemptionSparesBudgets(t *testing.T) {
	w := start(t)
	for i := range 2 {
		name := fmt.Sprint("n", i)
		create(w, node(name, "1"))
		create(w, pod("low-"+name, "800m", labelled("on", name), func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: name} }))
		w.lands("low-"+name, name)
	}
	create(w, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b", Namespace: "default"}, Spec: policyv1.PodDisruptionBudgetSpec{
		MinAvailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"on": "n0"}}}})
	create(w, pod("high", "800m", of(1000)))
	w.refused("high", "0/2 nodes are available: 2 Insufficient cpu. preemption: found a potential placement for pod on node n1, preempting 1 victims")
}

// uses has a pod use a claim for a volume.
func uses(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}}
	}
}

// lateVolume makes a volume of a class whose claims wait for their pod, and the
// class with it.
func (w *world) lateVolume(name string) {
	w.t.Helper()
	create(w, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "late"}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)})
	pv := create(w, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: corev1.ResourceList{"storage": resource.MustParse("1Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		StorageClassName: "late", PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/x"}}}})
	pv = pv.DeepCopy()
	pv.Status.Phase = corev1.VolumeAvailable
	if _, err := client.For[*corev1.PersistentVolume](w).UpdateStatus(w.t.Context(), pv); err != nil {
		w.t.Fatal(err)
	}
}

// lateClaim claims a volume of that class.
func (w *world) lateClaim(name string) *corev1.PersistentVolumeClaim {
	w.t.Helper()
	return create(w, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: ptr.To("late"),
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}}}})
}

func TestClaims(t *testing.T) {
	w := start(t)
	create(w, node("n1", "4"))
	create(w, pod("nope", "", uses("nope")))
	w.refused("nope", `0/1 nodes are available: persistentvolumeclaim "nope" not found. not found`)

	// Nothing provisions: a scheduler that sees the pod before the volume waits for it.
	w.lateVolume("pv")
	claim := w.lateClaim("c")
	create(w, pod("user", "", uses("c")))
	w.eventually("the volume being bound", func() bool {
		pv, err := client.For[*corev1.PersistentVolume](w).Get(t.Context(), "", "pv")
		if err != nil {
			t.Fatal(err)
		}
		return pv.Spec.ClaimRef != nil && pv.Spec.ClaimRef.UID == claim.UID
	})
	if got := w.pod("user").Spec.NodeName; got != "" {
		t.Fatalf("bound to %s before its volume", got)
	}
	// What the volume controller does.
	if _, err := client.For[*corev1.PersistentVolumeClaim](w).MergePatch(t.Context(), "default", "c", map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{"pv.kubernetes.io/bind-completed": "yes"}},
		"spec":     map[string]any{"volumeName": "pv"},
	}, ""); err != nil {
		t.Fatal(err)
	}
	w.lands("user", "n1")
}

// TestProfilesShareVolumes: what a profile has promised no other gives away,
// though the API does not show it yet.
func TestProfilesShareVolumes(t *testing.T) {
	w := start(t, func(c *configv1.KubeSchedulerConfiguration) {
		other := c.Profiles[0].DeepCopy()
		other.SchedulerName = ptr.To("other")
		c.Profiles = append(c.Profiles, *other)
	})
	held, release := w.hold("persistentvolumes")
	create(w, node("n1", "4"))
	w.lateVolume("pv")
	w.lateClaim("first")
	w.lateClaim("second")
	create(w, pod("first", "", uses("first")))
	<-held
	create(w, pod("second", "", uses("second"), func(p *corev1.Pod) { p.Spec.SchedulerName = "other" }))
	w.refused("second", "0/1 nodes are available: 1 node(s) didn't find available persistent volumes to bind. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
	release()
}
