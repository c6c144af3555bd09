// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/controller/podstate"
)

// manage returns the nodes that need a pod, and the pods that must go.
func (r *round) manage() (create []string, remove []*corev1.Pod) {
	known := map[string]bool{}
	for _, node := range r.nodes {
		known[node.Name] = true
		c, d := r.manageNode(node)
		if c {
			create = append(create, node.Name)
		}
		remove = append(remove, d...)
	}
	for node, pods := range r.placed {
		if known[node] {
			continue
		}
		for _, p := range pods {
			if p.Spec.NodeName == "" && p.DeletionTimestamp == nil {
				remove = append(remove, p) // it waits for a node that is gone
			}
		}
	}
	return create, remove
}

func (r *round) manageNode(node *corev1.Node) (create bool, remove []*corev1.Pod) {
	place, pods := fits(r.ds, node), r.placed[node.Name]
	if place.run && len(pods) == 0 {
		return true, nil
	}
	if !place.stay {
		for _, p := range pods {
			if p.DeletionTimestamp == nil {
				remove = append(remove, p)
			}
		}
		return false, remove
	}
	running, remove := r.ended(node, pods)
	r.sortPods(running)
	surge, _ := r.bounds(0)
	if surge == 0 {
		return false, append(remove, running[min(1, len(running)):]...)
	}
	if len(running) <= 1 {
		return len(running) == 0 && place.run, remove
	}
	return false, append(remove, r.superseded(running)...)
}

// ended separates the pods that run from those that ended and are to be
// replaced; one that fails again and again is replaced more and more rarely.
func (r *round) ended(node *corev1.Node, pods []*corev1.Pod) (running, remove []*corev1.Pod) {
	for _, p := range pods {
		switch {
		case p.DeletionTimestamp != nil:
		case p.Status.Phase == corev1.PodFailed:
			key := fmt.Sprintf("%s/%d/%s", r.ds.UID, r.ds.Status.ObservedGeneration, node.Name)
			if wait := r.failed.try(key, r.now); wait > 0 {
				r.again(wait)
				continue
			}
			r.events.Record(r.ctx, r.ds, kind, corev1.EventTypeWarning, "FailedDaemonPod", "Found failed daemon pod %s/%s on node %s, will try to kill it", p.Namespace, p.Name, node.Name)
			remove = append(remove, p)
		case p.Status.Phase == corev1.PodSucceeded:
			r.events.Record(r.ctx, r.ds, kind, corev1.EventTypeNormal, "SucceededDaemonPod", "Found succeeded daemon pod %s/%s on node %s, will try to delete it", p.Namespace, p.Name, node.Name)
			remove = append(remove, p)
		default:
			running = append(running, p)
		}
	}
	return running, remove
}

// superseded returns the pods of a node that a surge no longer needs: of each
// template only the oldest may be there, and of these two the old one goes when
// the new one is available, or when it is not ready itself.
func (r *round) superseded(running []*corev1.Pod) (remove []*corev1.Pod) {
	var oldest, newest *corev1.Pod
	for _, p := range running {
		switch fresh := r.ofHash(p); {
		case fresh && newest == nil:
			newest = p
		case !fresh && oldest == nil:
			oldest = p
		default:
			remove = append(remove, p)
		}
	}
	if newest != nil && oldest != nil {
		_, ready := podstate.Ready(oldest)
		if !ready || r.available(newest) {
			remove = append(remove, oldest)
		}
	}
	return remove
}

// sortPods puts the pod first that counts for its node: scheduled, then old. Times
// have whole seconds: of pods of one second that of an old template is the older.
func (r *round) sortPods(pods []*corev1.Pod) {
	number := func(yes bool) int {
		if yes {
			return 1
		}
		return 0
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(number(a.Spec.NodeName == ""), number(b.Spec.NodeName == "")), a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
			cmp.Compare(number(r.ofHash(a)), number(r.ofHash(b))), cmp.Compare(a.Name, b.Name))
	})
}

// apply makes and deletes pods, not more than a burst of each.
func (r *round) apply(create []string, remove []*corev1.Pod) error {
	create, remove = create[:min(len(create), burst)], remove[:min(len(remove), burst)]
	var failure error
	for batch := 1; len(create) > 0 && failure == nil; batch *= 2 {
		batch = min(batch, len(create))
		failure = inParallel(create[:batch], r.createPod)
		create = create[batch:]
	}
	return errors.Join(failure, inParallel(remove, r.deletePod))
}

func inParallel[T any](items []T, f func(T) error) error {
	errs := make([]error, len(items))
	var group sync.WaitGroup
	for i, item := range items {
		group.Go(func() { errs[i] = f(item) })
	}
	group.Wait()
	return errors.Join(errs...)
}

func (r *round) createPod(node string) error {
	p, err := r.pods.Create(r.ctx, r.newPod(node))
	if err != nil {
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil // nothing can be made here any more
		}
		r.events.Record(r.ctx, r.ds, kind, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		return err
	}
	r.pending.Create(r.ds.UID, p.UID, func() bool {
		seen, err := r.pods.Cached(p.Namespace, p.Name)
		return err == nil && seen.UID == p.UID
	})
	r.events.Record(r.ctx, r.ds, kind, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", p.Name)
	return nil
}

func (r *round) deletePod(p *corev1.Pod) error {
	r.pending.Delete(r.ds.UID, p.UID)
	uid := p.UID
	err := r.pods.Delete(r.ctx, p.Namespace, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil {
		r.pending.Gone(r.ds.UID, p.UID)
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil // it is gone already
		}
		r.events.Record(r.ctx, r.ds, kind, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
		return err
	}
	r.events.Record(r.ctx, r.ds, kind, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", p.Name)
	return nil
}
