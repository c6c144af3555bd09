// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// watchVolumes asks what is wrong with the volumes of pods until ctx ends.
func (k *Kubelet) watchVolumes(ctx context.Context) error {
	every := cmp.Or(k.cfg.VolumeCheck, time.Minute)
	if every < 0 {
		every = time.Minute
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, pod := range k.activePods() {
			for i := range pod.Spec.Volumes {
				k.askVolume(ctx, pod, pod.Spec.Volumes[i].Name)
			}
		}
	}
}

// askVolume brings what is known of a volume of a CSI driver up to date. A driver that
// does not answer leaves it as it is.
func (k *Kubelet) askVolume(ctx context.Context, pod *corev1.Pod, name string) {
	const driver = "kubernetes.io/csi"
	mounted, ok := k.volumes.Mounted(pod.UID, name)
	if !ok || mounted.Driver != driver {
		return
	}
	// Both places have the volume's own name above the last part.
	dir := k.volumes.Dir(pod.UID, driver, filepath.Base(filepath.Dir(mounted.Path)))
	conditions, tells, err := k.csi.VolumeHealth(ctx, dir)
	if err != nil && ctx.Err() == nil {
		k.log.Warn("the health of a volume is not known", "pod", pod.Namespace+"/"+pod.Name, "volume", name, "err", err)
	}
	s, known := k.statuses.Get(pod.UID)
	if err != nil || !tells || !known {
		return
	}
	all := slices.Clone(s.VolumeHealth)
	at := slices.IndexFunc(all, func(h corev1.PodVolumeHealth) bool { return h.Name == name })
	switch {
	case at < 0 && len(conditions) == 0 || at >= 0 && sameHealth(all[at].HealthConditions, conditions):
		return
	case at < 0:
		all = append(all, corev1.PodVolumeHealth{Name: name})
		at = len(all) - 1
	}
	all[at].HealthConditions, all[at].LastTransitionTime = conditions, metav1.NewTime(time.Now().Truncate(time.Second))
	k.mu.Lock()
	k.mu.health[pod.UID] = all
	k.mu.Unlock()
	k.pool.Wake(pod.UID)
}

// sameHealth compares by what is wrong and why, and not by how that is worded.
func sameHealth(a, b []corev1.VolumeHealthCondition) bool {
	type key struct {
		status corev1.VolumeHealthStatusType
		reason string
	}
	set := func(list []corev1.VolumeHealthCondition) map[key]bool {
		out := map[key]bool{}
		for _, c := range list {
			out[key{c.Status, c.Reason}] = true
		}
		return out
	}
	x, y := set(a), set(b)
	for k := range x {
		if !y[k] {
			return false
		}
	}
	return len(x) == len(y)
}

// healthStatus tells what is wrong with the volumes of a pod; what an agent before this
// one knew stays until more is known.
func (k *Kubelet) healthStatus(uid types.UID, old, s *corev1.PodStatus) {
	if !k.cfg.VolumeHealth {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s.VolumeHealth = old.VolumeHealth
	if all, known := k.mu.health[uid]; known {
		s.VolumeHealth = all
	}
}
