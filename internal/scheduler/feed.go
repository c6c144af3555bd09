// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"kaji/internal/client"
	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/queue"
	"kaji/internal/scheduler/snapshot"
)

// feed brings the changes that informers see into the loop.
type feed struct {
	s      *Scheduler
	synced []cache.InformerSynced
	// complete says that all plugins were made.
	complete bool
}

func newFeed(s *Scheduler) *feed { return &feed{s: s} }

// tracked is the client that plugins get: the scheduler waits for the first
// lists of all informers that they ask it for while they are made.
type tracked struct {
	client.Interface
	f *feed
}

// Informer implements client.Interface.
func (t tracked) Informer(gvr schema.GroupVersionResource, opts client.InformerOptions) cache.SharedIndexInformer {
	inf := t.Interface.Informer(gvr, opts)
	if !t.f.complete {
		t.f.synced = append(t.f.synced, inf.HasSynced)
	}
	return inf
}

// watch subscribes to what the scheduler itself needs and to the kinds that
// some plugin registered an event of.
func (f *feed) watch(hints map[queue.Rejector][]plugin.EventHint) {
	s := f.s
	f.complete = true
	wanted := map[plugin.Resource]bool{}
	for _, list := range hints {
		for _, h := range list {
			wanted[h.Resource] = true
		}
	}
	subscribe(f, func(old, new *corev1.Node) { s.nodeChanged(old, new) })
	subscribe(f, func(old, new *corev1.Namespace) { s.namespaceChanged(old, new) })
	if s.groups != nil {
		subscribe(f, func(old, new *schedulingv1beta1.PodGroup) { s.groupChanged(old, new) })
	}
	subscribe(f, func(old, new *corev1.Pod) { s.podChanged(old, new) })
	watchKind[*corev1.PersistentVolume](f, wanted, plugin.PersistentVolume)
	watchKind[*corev1.PersistentVolumeClaim](f, wanted, plugin.PersistentVolumeClaim)
	watchKind[*storagev1.StorageClass](f, wanted, plugin.StorageClass)
	watchKind[*storagev1.CSINode](f, wanted, plugin.CSINode)
	watchKind[*storagev1.CSIDriver](f, wanted, plugin.CSIDriver)
	watchKind[*storagev1.CSIStorageCapacity](f, wanted, plugin.CSIStorageCapacity)
	watchKind[*storagev1.VolumeAttachment](f, wanted, plugin.VolumeAttachment)
	watchKind[*resourcev1.ResourceClaim](f, wanted, plugin.ResourceClaim)
	watchKind[*resourcev1.ResourceSlice](f, wanted, plugin.ResourceSlice)
	watchKind[*resourcev1.DeviceClass](f, wanted, plugin.DeviceClass)
	if wanted[plugin.ResourceSlice] {
		// Rules taint devices: it is as if the slices had changed.
		subscribe(f, func(_, _ *resourcev1.DeviceTaintRule) {
			s.happened(plugin.Event{Resource: plugin.ResourceSlice, Action: plugin.UpdateOther}, nil, nil)
		})
	}
}

// subscribe posts every change to the loop; old is nil for a new object, new
// for one that is gone.
func subscribe[T client.Object](f *feed, changed func(old, new T)) {
	var none T
	post := f.s.inbox.post
	reg := client.For[T](f.s.client).AddHandler(client.Handler[T]{
		Add:    func(obj T) { post(func() { changed(none, obj) }) },
		Update: func(old, obj T) { post(func() { changed(old, obj) }) },
		Delete: func(obj T) { post(func() { changed(obj, none) }) },
	})
	if reg != nil {
		f.synced = append(f.synced, reg.HasSynced)
	}
}

// watchKind tells the queue of the changes of a kind.
func watchKind[T client.Object](f *feed, wanted map[plugin.Resource]bool, r plugin.Resource) {
	if !wanted[r] {
		return
	}
	var none T
	subscribe(f, func(old, new T) {
		action := plugin.UpdateOther
		var before, after any
		if any(old) != any(none) {
			before = old
		} else {
			action = plugin.Add
		}
		if any(new) != any(none) {
			after = new
		} else {
			action = plugin.Delete
		}
		f.s.happened(plugin.Event{Resource: r, Action: action}, before, after)
	})
}

// sync waits until the first lists have been posted; false says that ctx ended.
func (f *feed) sync(ctx context.Context) bool {
	return cache.WaitForCacheSync(ctx.Done(), f.synced...)
}

func (s *Scheduler) happened(e plugin.Event, before, after any) {
	began := time.Now()
	s.queue.Happened(e, before, after, began)
	s.metrics.eventDuration.WithLabelValues(e.Label()).Observe(time.Since(began).Seconds())
}

func (s *Scheduler) namespaceChanged(_, ns *corev1.Namespace) {
	if ns != nil {
		s.snap.SetNamespace(ns.Name, labels.Set(ns.Labels))
	}
}

func (s *Scheduler) nodeChanged(old, node *corev1.Node) {
	switch {
	case node == nil:
		s.snap.RemoveNode(old.Name)
		s.happened(plugin.Event{Resource: plugin.Node, Action: plugin.Delete}, old, nil)
	case old == nil:
		s.snap.SetNode(node)
		s.happened(plugin.Event{Resource: plugin.Node, Action: plugin.Add}, nil, node)
	default:
		s.snap.SetNode(node)
		for _, a := range nodeActions(old, node) {
			s.happened(plugin.Event{Resource: plugin.Node, Action: a}, old, node)
		}
	}
}

func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// podChanged files a pod where it belongs now: placed, waiting, or neither.
func (s *Scheduler) podChanged(old, pod *corev1.Pod) {
	if pod == nil || finished(pod) {
		gone := pod
		if gone == nil {
			gone = old
		}
		s.podGone(gone)
		return
	}
	if old != nil && old.UID != pod.UID {
		s.podGone(old)
		old = nil
	}
	if s.groups != nil {
		s.groups.Join(pod)
	}
	if pod.Spec.NodeName != "" {
		s.podPlaced(old, pod)
		return
	}
	if s.profiles[pod.Spec.SchedulerName] == nil {
		return
	}
	if assumed := s.snap.Pod(pod.UID); assumed != nil {
		return // the binding is under way; its outcome decides
	}
	p, err := s.snap.NewPod(pod)
	if err != nil {
		s.log.Error("pod cannot be understood in full", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
	if n := pod.Status.NominatedNodeName; n != "" || s.snap.Nominations()[pod.UID] != nil {
		if prev := s.snap.Nominations()[pod.UID]; n == "" && (old == nil || old.Status.NominatedNodeName == "") {
			n = prev.Nominated // nominated here; the patch has not come back yet
		}
		s.snap.Nominate(p, n)
	}
	var actions []plugin.Action
	if old != nil {
		actions = podActions(old, pod)
	}
	s.queue.Update(p, actions, time.Now())
	if old == nil && s.groups != nil {
		// It may complete a group; no other plugin waits for pods without a node.
		s.happened(plugin.Event{Resource: plugin.UnscheduledPod, Action: plugin.Add}, nil, pod)
	}
	for _, a := range actions {
		s.happened(plugin.Event{Resource: plugin.UnscheduledPod, Action: a}, old, pod)
	}
	if old != nil && old.Status.NominatedNodeName != "" && old.Status.NominatedNodeName != pod.Status.NominatedNodeName {
		// It kept room from those that are not more important.
		s.queue.Happened(plugin.Event{Resource: plugin.AssignedPod, Action: plugin.Delete}, old, nil, time.Now(),
			func(waiting *snapshot.Pod) bool { return waiting.Priority() <= p.Priority() })
	}
}

// podPlaced files a pod that is bound to a node.
func (s *Scheduler) podPlaced(old, pod *corev1.Pod) {
	s.queue.Delete(pod.UID)
	known := s.snap.Pod(pod.UID)
	if known != nil && known.NodeName == pod.Spec.NodeName && unchanged(known.Object, pod) {
		known.Object = pod
	} else {
		p, err := s.snap.NewPod(pod)
		if err != nil {
			s.log.Error("pod cannot be understood in full", "pod", pod.Namespace+"/"+pod.Name, "err", err)
		}
		if known != nil {
			s.snap.Refresh(known, p)
		} else {
			s.snap.Place(pod.Spec.NodeName, p)
		}
		if n := s.snap.Nominations()[pod.UID]; n != nil {
			s.snap.Nominate(n, "")
		}
	}
	if old == nil || old.Spec.NodeName == "" {
		s.happened(plugin.Event{Resource: plugin.AssignedPod, Action: plugin.Add}, nil, pod)
		return
	}
	for _, a := range podActions(old, pod) {
		if a != plugin.UpdateOther {
			s.happened(plugin.Event{Resource: plugin.AssignedPod, Action: a}, old, pod)
		}
	}
}

func (s *Scheduler) podGone(pod *corev1.Pod) {
	if n := s.snap.Nominations()[pod.UID]; n != nil {
		s.snap.Nominate(n, "")
	}
	s.queue.Delete(pod.UID)
	if s.groups != nil {
		s.groups.Leave(pod)
	}
	if w := s.waiting.pods[pod.UID]; w != nil {
		w.stop()
		delete(s.waiting.pods, pod.UID)
		s.undo(w.binding)
	}
	if known := s.snap.Pod(pod.UID); known != nil {
		s.snap.Displace(known)
		s.happened(plugin.Event{Resource: plugin.AssignedPod, Action: plugin.Delete}, pod, nil)
		return
	}
	s.happened(plugin.Event{Resource: plugin.UnscheduledPod, Action: plugin.Delete}, pod, nil)
}

// unchanged says without parsing that a placed pod counts as before.
func unchanged(a, b *corev1.Pod) bool {
	if a.Generation != b.Generation || b.Generation == 0 || !labels.Equals(a.Labels, b.Labels) ||
		(a.DeletionTimestamp == nil) != (b.DeletionTimestamp == nil) {
		return false
	}
	return !snapshot.UsesStatus(a) && !snapshot.UsesStatus(b)
}
