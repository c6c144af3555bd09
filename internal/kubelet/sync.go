// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/admit"
	"kaji/internal/kubelet/podrun"
	"kaji/internal/kubelet/podspec"
	"kaji/internal/kubelet/podworker"
	"kaji/internal/kubelet/status"
	"kaji/internal/kubelet/volume"
)

// syncer is a Kubelet as its pod workers see it.
type syncer Kubelet

var _ podworker.Syncer = (*syncer)(nil)

// retry delays the next attempt at a pod's volumes: 500 ms, doubling to 2 min.
type retry struct {
	delay time.Duration
	at    time.Time
}

// mirrorRetry is when the mirror of a static pod is tried again.
const mirrorRetry = 5 * time.Second

// Sync implements podworker.Syncer: one look at a pod that is to run.
func (s *syncer) Sync(ctx context.Context, pod *corev1.Pod) (podworker.Outcome, error) {
	k := (*Kubelet)(s)
	operation := "sync"
	if _, known := k.statuses.Get(pod.UID); !known {
		operation = "create"
		k.countFirst(pod)
	}
	defer since(k.meter.PodWorker.WithLabelValues(operation), time.Now())
	if k.refuse(pod) {
		return podworker.Outcome{Over: true}, nil
	}
	if podspec.Static(pod) {
		k.mirror(ctx, pod)
	}
	k.objects.Register(pod)
	a, err := k.determine(ctx, pod)
	if err != nil {
		return podworker.Outcome{}, err
	}
	k.probes.Update(pod, a)
	deadline := k.deadline(pod)
	st := k.publish(pod, a, false, nil)
	if final(st.Phase) {
		return podworker.Outcome{Over: true}, nil
	}
	if problem := k.runtime.Load().network; problem != "" && !pod.Spec.HostNetwork {
		k.recorder.Eventf(podrun.Reference(pod), corev1.EventTypeWarning, "NetworkNotReady", "network is not ready: %s", problem)
		k.node.Wake()
		return podworker.Outcome{RetryAt: time.Now().Add(time.Second)}, nil
	}
	if k.cgroups != nil {
		if err := k.ensureGroup(pod, false); err != nil {
			k.recorder.Event(podrun.Reference(pod), corev1.EventTypeWarning, "FailedToCreatePodContainer", "unable to ensure pod container exists: "+err.Error())
			return podworker.Outcome{}, err
		}
	}
	out := podworker.Outcome{RetryAt: deadline}
	if at, ok := k.mount(ctx, pod); !ok {
		out.RetryAt, out.Over = earliest(out.RetryAt, at), k.refuse(pod) // now, perhaps
		return out, nil
	}
	if err := k.prepareClaims(ctx, pod); err != nil {
		k.recorder.Eventf(podrun.Reference(pod), corev1.EventTypeWarning, "FailedPrepareDynamicResources", "Failed to prepare dynamic resources: %v", err)
		return podworker.Outcome{}, err
	}
	result, err := k.runner.Sync(ctx, pod, a, status.Restarting(&st))
	if err != nil {
		return podworker.Outcome{}, err
	}
	out.Again = result.Changed
	out.RetryAt = earliest(out.RetryAt, result.RetryAt)
	if !result.Changed {
		if k.cgroups != nil { // containers are within the new limits by now
			if err := k.ensureGroup(pod, true); err != nil {
				return podworker.Outcome{}, err
			}
			k.mu.Lock()
			resizing := k.mu.resizing[pod.UID]
			k.mu.Unlock()
			if resizing && pod.Spec.Resources != nil {
				k.publish(pod, a, false, nil) // it is done now
			}
		}
		if !result.RetryAt.IsZero() {
			k.publish(pod, a, false, nil) // a container waits for another reason than before
		}
		k.uncollected(ctx, pod, k.runner.Prune(ctx, pod, a))
		out.RetryAt = earliest(out.RetryAt, k.tokens.refreshAt(pod.UID))
		out.RetryAt = earliest(out.RetryAt, k.certificates.RefreshAt(pod.UID))
		out.RetryAt = earliest(out.RetryAt, k.volumes.Again(pod.UID))
		if podspec.Static(pod) && k.mirrorOf(pod.UID) == nil {
			out.RetryAt = earliest(out.RetryAt, time.Now().Add(mirrorRetry))
		}
	}
	return out, nil
}

// determine asks the runtime how a pod fares.
func (k *Kubelet) determine(ctx context.Context, pod *corev1.Pod) (*actual.Pod, error) {
	a, err := actual.Observe(ctx, k.cfg.Runtime, pod.Namespace, pod.Name, pod.UID)
	if err != nil && ctx.Err() == nil {
		k.recorder.Eventf(podrun.Reference(pod), corev1.EventTypeWarning, "FailedSync", "error determining status: %v", err)
	}
	return a, err
}

// uncollected tells that dead containers could not be removed.
func (k *Kubelet) uncollected(ctx context.Context, pod *corev1.Pod, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	k.log.Warn("dead containers were not removed", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	k.recorder.Event(k.nodeReference(), corev1.EventTypeWarning, "ContainerGCFailed", err.Error())
}

// ensureGroup makes the control group of a pod, or brings it up to date.
func (k *Kubelet) ensureGroup(pod *corev1.Pod, lower bool) error {
	defer since(k.meter.Groups.WithLabelValues("update"), time.Now())
	return k.cgroups.Ensure(pod, lower)
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func final(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

// deadline notes that a pod has been active for too long, or returns when it
// will have been.
func (k *Kubelet) deadline(pod *corev1.Pod) time.Time {
	if pod.Spec.ActiveDeadlineSeconds == nil {
		return time.Time{}
	}
	start := pod.Status.StartTime
	if s, ok := k.statuses.Get(pod.UID); ok {
		start = s.StartTime
	}
	if start.IsZero() {
		return time.Now().Add(time.Duration(*pod.Spec.ActiveDeadlineSeconds) * time.Second)
	}
	at := start.Add(time.Duration(*pod.Spec.ActiveDeadlineSeconds) * time.Second)
	if time.Now().Before(at) {
		return at
	}
	const message = "Pod was active on the node longer than the specified deadline"
	k.mu.Lock()
	_, known := k.mu.fails[pod.UID]
	k.mu.fails[pod.UID] = status.Reason{Reason: "DeadlineExceeded", Message: message}
	k.mu.Unlock()
	if !known {
		k.recorder.Event(podrun.Reference(pod), corev1.EventTypeNormal, "DeadlineExceeded", message)
	}
	return time.Time{}
}

// mount makes a pod's directories and volumes ready; otherwise it returns when
// to try again.
func (k *Kubelet) mount(ctx context.Context, pod *corev1.Pod) (time.Time, bool) {
	k.mu.Lock()
	last := k.mu.retries[pod.UID]
	k.mu.Unlock()
	if time.Now().Before(last.at) {
		return last.at, false
	}
	err := k.makeDirs(pod)
	if err == nil {
		err = k.volumes.Setup(ctx, pod)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		delete(k.mu.retries, pod.UID)
		return time.Time{}, true
	}
	if ctx.Err() != nil {
		return time.Time{}, false
	}
	delay := min(max(last.delay*2, 500*time.Millisecond), 2*time.Minute+2*time.Second)
	at := time.Now().Add(delay)
	k.mu.retries[pod.UID] = retry{delay, at}
	for _, one := range flatten(err) {
		reason := "FailedMount"
		var shown *volume.Error
		if errors.As(one, &shown) {
			reason = shown.Reason
		}
		if reason == volume.AttachLimit {
			k.meter.Rejections.WithLabelValues(reason).Inc()
			k.mu.rejected[pod.UID] = admit.Rejection{Reason: reason, Message: one.Error()}
		}
		k.recorder.Event(podrun.Reference(pod), corev1.EventTypeWarning, reason, one.Error())
	}
	return at, false
}

// flatten takes errors that were joined apart.
func flatten(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, one := range joined.Unwrap() {
			all = append(all, flatten(one)...)
		}
		return all
	}
	return []error{err}
}

func (k *Kubelet) podDir(uid types.UID) string {
	return filepath.Join(k.cfg.RootDir, "pods", string(uid))
}

func (k *Kubelet) makeDirs(pod *corev1.Pod) error {
	for _, dir := range []string{"volumes", "plugins"} {
		if err := os.MkdirAll(filepath.Join(k.podDir(pod.UID), dir), 0o750); err != nil {
			k.recorder.Eventf(podrun.Reference(pod), corev1.EventTypeWarning, "FailedToMakePodDataDirectories", "error making pod data directories: %v", err)
			return fmt.Errorf("make the pod's directories: %w", err)
		}
	}
	return nil
}

// lock serializes what is written of a pod's status.
func (k *Kubelet) lock(uid types.UID) *sync.Mutex {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.mu.locks[uid]
	if l == nil {
		l = &sync.Mutex{}
		k.mu.locks[uid] = l
	}
	return l
}

// publish makes the status of a pod and hands it on to be written. ending
// says that nothing will be started again; change is applied last.
func (k *Kubelet) publish(pod *corev1.Pod, a *actual.Pod, ending bool, change func(*corev1.PodStatus)) corev1.PodStatus {
	l := k.lock(pod.UID)
	l.Lock()
	defer l.Unlock()
	return k.publishLocked(pod, a, ending, change)
}

func (k *Kubelet) publishLocked(pod *corev1.Pod, a *actual.Pod, ending bool, change func(*corev1.PodStatus)) corev1.PodStatus {
	if k.refuse(pod) {
		s, _ := k.statuses.Get(pod.UID)
		return s
	}
	known := pod
	if api := k.apiPod(pod.UID); api != nil && !podspec.Static(pod) {
		known = pod.DeepCopy() // what others wrote in the status since
		known.Status = api.Status
	}
	old, ok := k.statuses.Get(pod.UID)
	if !ok {
		old = known.Status
	}
	k.mu.Lock()
	fail, failed := k.mu.fails[pod.UID]
	k.mu.Unlock()
	in := status.Input{
		Pod: known, Old: &old, Actual: a, RuntimeName: k.runtime.Load().name, Health: k.probes, Terminal: ending,
		HostIPs: k.hostIPs(), Message: terminationMessage, RecursiveReadOnly: k.runtime.Load().rro,
		Waiting: func(container string) (status.Reason, bool) { return k.runner.Waiting(pod.UID, container) },
	}
	if failed {
		in.Fail = &fail
	}
	if k.cgroups != nil {
		if l := k.cgroups.Read(pod); l != nil {
			in.Group = &status.Group{Shares: l.Shares, Quota: l.Quota, Period: l.Period, Memory: l.Memory}
		}
	}
	if !ending {
		in.Resize = k.resizeConditions(pod, a)
	}
	s := status.Generate(in)
	k.countRunning(known, &old, &s)
	k.countEnded(&old, &s)
	k.deviceStatus(pod.UID, &s)
	k.healthStatus(pod.UID, &old, &s)
	if change != nil {
		change(&s)
	}
	k.statuses.Set(known, s, true)
	return s
}

// refresh brings the status of a pod that is being ended up to date.
func (k *Kubelet) refresh(uid types.UID) {
	l := k.lock(uid)
	l.Lock()
	defer l.Unlock()
	pod := k.pool.Pod(uid)
	if state, ok := k.pool.State(uid); !ok || state != podworker.Terminating || pod == nil {
		return
	}
	a, err := actual.Observe(context.Background(), k.cfg.Runtime, pod.Namespace, pod.Name, uid)
	if err != nil {
		return // the worker reports what is wrong with the runtime
	}
	k.publishLocked(pod, a, true, nil)
}

// Terminate implements podworker.Syncer.
func (s *syncer) Terminate(ctx context.Context, pod *corev1.Pod, end podworker.End) error {
	k := (*Kubelet)(s)
	defer since(k.meter.PodWorker.WithLabelValues("terminating"), time.Now())
	a, err := k.determine(ctx, pod)
	if err != nil {
		return err
	}
	k.probes.Update(pod, a)
	k.publish(pod, a, true, end.Status)
	if err := k.runner.Kill(ctx, pod, a, end.Grace); err != nil {
		k.recorder.Eventf(podrun.Reference(pod), corev1.EventTypeWarning, "FailedKillPod", "error killing pod: %v", err)
		return fmt.Errorf("kill pod: %w", err)
	}
	// Ctx may have been cut by a shorter grace that came too late to matter.
	if a, err = actual.Observe(context.WithoutCancel(ctx), k.cfg.Runtime, pod.Namespace, pod.Name, pod.UID); err != nil {
		return err
	}
	if running := a.Running(); len(running) > 0 {
		return fmt.Errorf("detected running containers after a successful kill: %s", running[0].Name)
	}
	k.probes.Update(pod, a)
	l := k.lock(pod.UID)
	l.Lock()
	defer l.Unlock()
	k.publishLocked(pod, a, true, end.Status)
	return nil
}

// Clean implements podworker.Syncer.
func (s *syncer) Clean(ctx context.Context, pod *corev1.Pod) error {
	k := (*Kubelet)(s)
	defer since(k.meter.PodWorker.WithLabelValues("terminated"), time.Now())
	k.shared()
	if err := k.volumes.Teardown(ctx, pod.UID); err != nil {
		return err
	}
	if err := k.removeSubPaths(pod.UID); err != nil {
		return err
	}
	begun := time.Now()
	err := k.claims.Unprepare(ctx, pod.UID)
	k.countClaims("UnprepareResources", pod, begun, err)
	if err != nil {
		return err
	}
	if k.cgroups != nil {
		begun = time.Now()
		err = k.cgroups.Remove(pod)
		since(k.meter.Groups.WithLabelValues("destroy"), begun)
		if err != nil {
			return err
		}
	}
	if err := k.ranges.Release(pod.UID); err != nil {
		return err
	}
	k.release(pod.UID)
	k.probes.Remove(pod.UID)
	k.objects.Unregister(pod.UID)
	k.tokens.forget(pod.UID)
	k.certificates.Forget(pod.UID)
	known := pod
	if api := k.apiPod(pod.UID); api != nil && !podspec.Static(pod) {
		known = api
	}
	k.statuses.Finish(known)
	if mirror := k.mirrorOf(pod.UID); mirror != nil && podspec.Static(pod) && k.pool.Gone(pod.UID) {
		if err := k.unmirror(ctx, mirror); err != nil {
			return err
		}
	}
	k.statuses.Deletable(pod.UID)
	return nil
}

// Forget implements podworker.Syncer.
func (s *syncer) Forget(ctx context.Context, pod *corev1.Pod) {
	k := (*Kubelet)(s)
	a, err := actual.Observe(ctx, k.cfg.Runtime, pod.Namespace, pod.Name, pod.UID)
	if err == nil {
		err = k.runner.Remove(ctx, a)
	}
	k.uncollected(ctx, pod, err)
	if err := os.RemoveAll(k.podDir(pod.UID)); err != nil {
		k.log.Warn("a pod's directory was not removed", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
	k.runner.Forget(pod.UID)
	k.statuses.Forget(pod.UID)
	k.shown.Gone(pod)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.undefer(pod, "terminated")
	delete(k.mu.asked, pod.UID)
	delete(k.mu.health, pod.UID)
	delete(k.mu.retries, pod.UID)
	delete(k.mu.fails, pod.UID)
	delete(k.mu.grants, pod.UID)
	delete(k.mu.seen, pod.UID)
	delete(k.mu.pulls, pod.UID)
	delete(k.mu.rejected, pod.UID)
	delete(k.mu.pending, pod.UID)
	delete(k.mu.resizing, pod.UID)
	delete(k.mu.locks, pod.UID)
}
