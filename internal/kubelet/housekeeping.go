// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"kaji/internal/kubelet/evict"
	"kaji/internal/kubelet/logs"
	"kaji/internal/kubelet/podrun"
	"kaji/internal/kubelet/podspec"
	"kaji/internal/kubelet/podworker"
	"kaji/internal/kubelet/stats"
	"kaji/internal/kubelet/status"
)

// Intervals of what is done now and then.
const (
	rotateEvery  = 10 * time.Second
	collectEvery = 5 * time.Minute
	growEvery    = 30 * time.Second
)

// housekeep rotates logs, collects images and lets volumes grow until ctx ends.
func (k *Kubelet) housekeep(ctx context.Context) error {
	rotate, collect, grow := time.NewTicker(k.cfg.LogCheck), time.NewTicker(collectEvery), time.NewTicker(growEvery)
	defer grow.Stop()
	defer rotate.Stop()
	defer collect.Stop()
	for failed := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-rotate.C:
			k.rotateLogs(ctx)
		case <-collect.C:
			failed = k.collectImages(ctx, failed)
		case <-grow.C:
			for _, pod := range k.activePods() {
				if err := k.volumes.Resize(ctx, pod); err != nil && ctx.Err() == nil {
					k.log.Warn("volumes do not use their new sizes yet", "pod", pod.Namespace+"/"+pod.Name, "err", err)
				}
			}
		}
	}
}

// resizedVolume records how it went when a volume had grown.
func (k *Kubelet) resizedVolume(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim, name string, err error) {
	if err != nil {
		k.recorder.Eventf(podrun.Reference(pod), corev1.EventTypeWarning, "VolumeResizeFailed", "NodeExpandVolume.NodeExpandVolume failed for volume %q : %v", name, err)
		return
	}
	for _, about := range []runtime.Object{podrun.Reference(pod), claim} {
		k.recorder.Eventf(about, corev1.EventTypeNormal, "FileSystemResizeSuccessful", "MountVolume.NodeExpandVolume succeeded for volume %q %s", name, k.cfg.NodeName)
	}
}

// rotateLogs looks at the logs of running containers.
func (k *Kubelet) rotateLogs(ctx context.Context) {
	workers := make(chan struct{}, k.cfg.LogWorkers)
	var busy sync.WaitGroup
	defer busy.Wait()
	for _, pod := range k.pool.Pods() {
		s, ok := k.statuses.Get(pod.UID)
		if !ok {
			continue
		}
		for _, list := range [][]corev1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses, s.EphemeralContainerStatuses} {
			for i := range list {
				c := &list[i]
				if c.State.Running == nil {
					continue
				}
				workers <- struct{}{}
				busy.Go(func() {
					defer func() { <-workers }()
					k.rotateLog(ctx, pod, c)
				})
			}
		}
	}
}

func (k *Kubelet) rotateLog(ctx context.Context, pod *corev1.Pod, c *corev1.ContainerStatus) {
	path := filepath.Join(k.runner.PodLogDir(pod), c.Name, fmt.Sprintf("%d.log", c.RestartCount))
	_, err := logs.Rotate(path, k.cfg.LogMaxSize, k.cfg.LogMaxFiles, func() error {
		_, err := k.cfg.Runtime.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: status.BareID(c.ContainerID)})
		return err
	})
	if err != nil && ctx.Err() == nil {
		k.log.Warn("a log was not rotated", "pod", pod.Namespace+"/"+pod.Name, "container", c.Name, "err", err)
	}
}

// usedImages are the images of all containers, by every name they go by.
func (k *Kubelet) usedImages(ctx context.Context) (map[string]bool, error) {
	answer, err := k.cfg.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	used := map[string]bool{}
	for _, c := range answer.Containers {
		used[c.ImageRef], used[c.ImageId], used[c.GetImage().GetImage()] = true, true, true
	}
	for _, pod := range k.pool.Pods() {
		for i := range pod.Spec.Volumes {
			if v := pod.Spec.Volumes[i].Image; v != nil {
				used[v.Reference] = true
			}
		}
	}
	delete(used, "")
	return used, nil
}

// collectImages removes images by the policy and says whether that failed. The first
// failure of several (again) is no event: what the node has may not be known yet.
func (k *Kubelet) collectImages(ctx context.Context, again bool) (failed bool) {
	if k.cfg.ImageGC.High >= 100 && k.cfg.ImageGC.MaxAge == 0 {
		return false
	}
	err := k.collect(ctx)
	if err == nil || ctx.Err() != nil {
		return false
	}
	k.log.Warn("images were not collected", "err", err)
	if again {
		k.recorder.Event(k.nodeReference(), corev1.EventTypeWarning, "ImageGCFailed", err.Error())
	}
	return true
}

func (k *Kubelet) collect(ctx context.Context) error {
	used, err := k.usedImages(ctx)
	if err != nil {
		return err
	}
	space, _, err := k.stats.ImageSpace(ctx)
	if err != nil {
		return err
	}
	if space.Capacity == 0 {
		err := errors.New("invalid capacity 0 on image filesystem")
		k.recorder.Event(k.nodeReference(), corev1.EventTypeWarning, "InvalidDiskCapacity", err.Error())
		return err
	}
	_, err = k.images.Collect(ctx, k.cfg.ImageGC, used, space.Available, space.Capacity)
	if err != nil && ctx.Err() == nil && strings.HasPrefix(err.Error(), "Failed to garbage collect required amount of images.") {
		k.recorder.Event(k.nodeReference(), corev1.EventTypeWarning, "FreeDiskSpaceFailed", err.Error())
	}
	return err
}

func (k *Kubelet) nodeReference() *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Node", Name: k.cfg.NodeName, UID: types.UID(k.cfg.NodeName)}
}

// observe reads what the node has left.
func (k *Kubelet) observe(ctx context.Context) (evict.Observation, error) {
	available := stats.MemoryNow().Available
	available -= min(available, k.cfg.Machine.Reserved()) // huge pages are no other's
	o := evict.Observation{evict.MemoryAvailable: {Available: available, Capacity: uint64(k.cfg.Machine.Memory)}}
	if k.cgroups != nil {
		if bound, used, ok := k.cgroups.Memory(); ok {
			o[evict.AllocatableMemory] = evict.Amount{Available: bound - min(bound, used), Capacity: bound}
		}
	}
	root, err := stats.SpaceOf(k.cfg.RootDir)
	if err != nil {
		return nil, err
	}
	o[evict.NodeFsAvailable] = evict.Amount{Available: root.Available, Capacity: root.Capacity}
	o[evict.NodeFsInodes] = evict.Amount{Available: root.InodesFree, Capacity: root.Inodes}
	if images, _, err := k.stats.ImageSpace(ctx); err == nil {
		o[evict.ImageFsAvailable] = evict.Amount{Available: images.Available, Capacity: images.Capacity}
		o[evict.ImageFsInodes] = evict.Amount{Available: images.InodesFree, Capacity: images.Inodes}
	}
	if layers, split := k.stats.LayerSpace(ctx); split {
		o[evict.ContainerFsAvailable] = evict.Amount{Available: layers.Available, Capacity: layers.Capacity}
		o[evict.ContainerFsInodes] = evict.Amount{Available: layers.InodesFree, Capacity: layers.Inodes}
	}
	most, now := stats.Processes()
	o[evict.PIDAvailable] = evict.Amount{Available: uint64(max(most-now, 0)), Capacity: uint64(most)}
	return o, nil
}

// activePods are those that may still take resources.
func (k *Kubelet) activePods() []*corev1.Pod {
	var pods []*corev1.Pod
	for _, pod := range k.pool.Pods() {
		if state, ok := k.pool.State(pod.UID); ok && state == podworker.Syncing {
			pods = append(pods, pod)
		}
	}
	return pods
}

// use reads what each pod takes.
func (k *Kubelet) use(ctx context.Context) (map[*corev1.Pod]evict.Use, error) {
	summary, err := k.stats.Summary(ctx, false)
	if err != nil {
		return nil, err
	}
	byUID := map[string]*statsapi.PodStats{}
	for i := range summary.Pods {
		byUID[summary.Pods[i].PodRef.UID] = &summary.Pods[i]
	}
	value := func(n *uint64) uint64 {
		if n == nil {
			return 0
		}
		return *n
	}
	all, apart := map[*corev1.Pod]evict.Use{}, k.stats.ImagesApart(ctx)
	_, split := k.stats.LayerSpace(ctx)
	for _, pod := range k.activePods() {
		p := byUID[string(pod.UID)]
		if p == nil {
			continue
		}
		u := evict.Use{Apart: apart && !split, Split: apart && split, Volumes: map[string]uint64{}, Containers: map[string]uint64{}, ContainerMemory: map[string]uint64{}}
		if p.Memory != nil {
			u.Memory = value(p.Memory.WorkingSetBytes)
		}
		if p.ProcessStats != nil {
			u.Processes = value(p.ProcessStats.ProcessCount)
		}
		if p.EphemeralStorage != nil {
			u.Disk, u.Inodes = value(p.EphemeralStorage.UsedBytes), value(p.EphemeralStorage.InodesUsed)
		}
		for _, c := range p.Containers {
			if c.Rootfs != nil {
				u.Layers += value(c.Rootfs.UsedBytes)
				u.LayerInodes += value(c.Rootfs.InodesUsed)
			}
			if c.Memory != nil {
				u.ContainerMemory[c.Name] = value(c.Memory.WorkingSetBytes)
			}
			for _, f := range []*statsapi.FsStats{c.Rootfs, c.Logs} {
				if f != nil {
					u.Containers[c.Name] += value(f.UsedBytes)
				}
			}
		}
		for _, v := range p.VolumeStats {
			u.Volumes[v.Name] = value(v.UsedBytes)
		}
		all[pod] = u
	}
	return all, nil
}

// thresholdMet tells that the node has too little of something.
func (k *Kubelet) thresholdMet(s evict.Signal) {
	k.recorder.Eventf(k.nodeReference(), corev1.EventTypeWarning, "EvictionThresholdMet", "Attempting to reclaim %s", s.Resource())
}

// outOfMemory tells that the kernel ended a process for lack of the machine's memory.
func (k *Kubelet) outOfMemory(process string, pid int) {
	k.recorder.Eventf(k.nodeReference(), corev1.EventTypeWarning, "SystemOOM", "System OOM encountered, victim process: %s, pid: %d", process, pid)
}

// evict ends a pod for lack of a resource.
func (k *Kubelet) evict(pod *corev1.Pod, message string, grace time.Duration, signal evict.Signal, annotations map[string]string) {
	k.log.Info("evicting a pod", "pod", pod.Namespace+"/"+pod.Name, "signal", signal, "message", message)
	k.recorder.AnnotatedEventf(podrun.Reference(pod), annotations, corev1.EventTypeWarning, "Evicted", "%s", message)
	k.meter.Evictions.WithLabelValues(string(signal)).Inc()
	why := &corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
		Reason: corev1.PodReasonTerminationByKubelet, Message: message, ObservedGeneration: pod.Generation}
	if signal.Own() {
		why = nil // the pod disrupts itself
	}
	k.endPod(pod, "Evicted", message, grace, why)
}

// endPod ends a pod as failed.
func (k *Kubelet) endPod(pod *corev1.Pod, reason, message string, grace time.Duration, why *corev1.PodCondition) {
	k.mu.Lock()
	k.mu.fails[pod.UID] = status.Reason{Reason: reason, Message: message}
	k.mu.Unlock()
	k.pool.Kill(pod.UID, podworker.End{Grace: &grace, Status: func(s *corev1.PodStatus) {
		s.Phase, s.Reason, s.Message = corev1.PodFailed, reason, message
		if why != nil && status.Condition(s.Conditions, why.Type) == nil {
			c := *why
			c.LastTransitionTime = metav1.NewTime(time.Now().Truncate(time.Second))
			s.Conditions = append(s.Conditions, c)
		}
	}})
	// Half as long again may pass, and ten seconds in any case.
	time.AfterFunc(max(grace+grace/2, 10*time.Second), func() {
		if state, known := k.pool.State(pod.UID); known && state < podworker.Terminated {
			k.recorder.Event(podrun.Reference(pod), corev1.EventTypeWarning, "ExceededGracePeriod", "Container runtime did not kill the pod within specified grace period.")
		}
	})
}

// reclaim frees disk without ending pods. Neither containers nor images take
// anything of the node's own file system where they have another; where images alone
// have it, removing containers does not help it.
func (k *Kubelet) reclaim(ctx context.Context, s evict.Signal) {
	containers, unused := true, true
	if k.stats.ImagesApart(ctx) {
		_, split := k.stats.LayerSpace(ctx)
		ofImages := s == evict.ImageFsAvailable || s == evict.ImageFsInodes
		containers, unused = ofImages != split, ofImages
	}
	if containers {
		k.removeEnded(ctx)
	}
	if !unused {
		return
	}
	used, err := k.usedImages(ctx)
	if err == nil {
		_, err = k.images.RemoveUnused(ctx, used)
	}
	if err != nil && ctx.Err() == nil {
		k.log.Warn("images were not removed", "err", err)
	}
}

// removeEnded removes the containers of pods that are over.
func (k *Kubelet) removeEnded(ctx context.Context) {
	for _, pod := range k.pool.Pods() {
		if state, ok := k.pool.State(pod.UID); ok && state == podworker.Finished && !podspec.Static(pod) {
			k.uncollected(ctx, pod, k.removeDead(ctx, pod))
		}
	}
}

func (k *Kubelet) removeDead(ctx context.Context, pod *corev1.Pod) error {
	a, err := (*served)(k).Observe(ctx, pod)
	if err != nil {
		return err
	}
	return k.runner.Remove(ctx, a)
}

// sweepDirs removes what is left on disk of pods that neither a source nor the
// runtime knows.
func (k *Kubelet) sweepDirs(ctx context.Context, running map[types.UID]bool) {
	entries, err := os.ReadDir(filepath.Join(k.cfg.RootDir, "pods"))
	if err != nil {
		k.log.Warn("directories of pods were not read", "err", err)
		return
	}
	cleaned, failed := 0, 0
	defer func() {
		k.meter.OrphanVolumes.Set(float64(cleaned))
		k.meter.OrphanVolumeErrors.Set(float64(failed))
	}()
	for _, e := range entries {
		uid := types.UID(e.Name())
		if _, known := k.pool.State(uid); known || running[uid] {
			continue
		}
		cleaned++
		err := errors.Join(k.volumes.Teardown(ctx, uid), k.removeSubPaths(uid), k.ranges.Release(uid))
		if err == nil {
			err = os.RemoveAll(k.podDir(uid))
		}
		if err != nil {
			failed++
		}
		if err != nil && ctx.Err() == nil {
			k.log.Warn("the directory of a pod that is gone was not removed", "uid", uid, "err", err)
		}
	}
}
