// SPDX-License-Identifier: Apache-2.0

package replicaset

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"kaji/internal/client"
)

// source is where the controller's sets come from: objects of one kind, seen
// as ReplicaSets. What it returns shares the informer's objects.
type source struct {
	informer cache.SharedIndexInformer
	cached   func(namespace, name string) (*appsv1.ReplicaSet, error)
	list     func(namespace string) []*appsv1.ReplicaSet
	// live reads from the server.
	live         func(ctx context.Context, namespace, name string) (metav1.Object, error)
	updateStatus func(ctx context.Context, rs *appsv1.ReplicaSet, status *appsv1.ReplicaSetStatus) error
	// comparable leaves of a status what the kind can hold.
	comparable func(*appsv1.ReplicaSetStatus) *appsv1.ReplicaSetStatus
	handle     func(func(o metav1.Object, gone bool))
}

// newSource reads objects of T by see, and gives one a status by told.
func newSource[T client.Object](api client.Interface, see func(T) *appsv1.ReplicaSet, told func(T, *appsv1.ReplicaSetStatus) T) source {
	sets := client.For[T](api)
	return source{
		informer: sets.Informer(),
		cached: func(namespace, name string) (*appsv1.ReplicaSet, error) {
			o, err := sets.Cached(namespace, name)
			if err != nil {
				return nil, err
			}
			return see(o), nil
		},
		list: func(namespace string) (out []*appsv1.ReplicaSet) {
			for _, o := range sets.CachedList(namespace, nil) {
				out = append(out, see(o))
			}
			return out
		},
		live: func(ctx context.Context, namespace, name string) (metav1.Object, error) {
			return sets.Get(ctx, namespace, name)
		},
		updateStatus: func(ctx context.Context, rs *appsv1.ReplicaSet, status *appsv1.ReplicaSetStatus) error {
			o, err := sets.Cached(rs.Namespace, rs.Name)
			if err != nil {
				return err
			}
			changed := told(o, status)
			// The status was counted for this version, and must fail on another.
			changed.SetUID(rs.UID)
			changed.SetResourceVersion(rs.ResourceVersion)
			_, err = sets.UpdateStatus(ctx, changed)
			return err
		},
		comparable: func(s *appsv1.ReplicaSetStatus) *appsv1.ReplicaSetStatus { return s },
		handle: func(f func(metav1.Object, bool)) {
			sets.AddHandler(client.Handler[T]{Add: func(o T) { f(o, false) }, Update: func(_, o T) { f(o, false) }, Delete: func(o T) { f(o, true) }})
		},
	}
}

func replicaSets(api client.Interface) source {
	return newSource(api, func(rs *appsv1.ReplicaSet) *appsv1.ReplicaSet { return rs }, func(rs *appsv1.ReplicaSet, status *appsv1.ReplicaSetStatus) *appsv1.ReplicaSet {
		changed := rs.DeepCopy()
		changed.Status = *status
		return changed
	})
}

func replicationControllers(api client.Interface) source {
	s := newSource(api, func(rc *corev1.ReplicationController) *appsv1.ReplicaSet {
		rs := &appsv1.ReplicaSet{ObjectMeta: rc.ObjectMeta, Spec: appsv1.ReplicaSetSpec{
			Replicas: rc.Spec.Replicas, MinReadySeconds: rc.Spec.MinReadySeconds, Selector: &metav1.LabelSelector{MatchLabels: rc.Spec.Selector},
		}, Status: appsv1.ReplicaSetStatus{
			Replicas: rc.Status.Replicas, FullyLabeledReplicas: rc.Status.FullyLabeledReplicas, ReadyReplicas: rc.Status.ReadyReplicas,
			AvailableReplicas: rc.Status.AvailableReplicas, ObservedGeneration: rc.Status.ObservedGeneration,
		}}
		if rc.Spec.Template != nil {
			rs.Spec.Template = *rc.Spec.Template
		}
		for _, c := range rc.Status.Conditions {
			rs.Status.Conditions = append(rs.Status.Conditions, appsv1.ReplicaSetCondition{Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status,
				LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message})
		}
		return rs
	}, func(rc *corev1.ReplicationController, s *appsv1.ReplicaSetStatus) *corev1.ReplicationController {
		changed := rc.DeepCopy()
		changed.Status = corev1.ReplicationControllerStatus{Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas,
			AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration}
		for _, c := range s.Conditions {
			changed.Status.Conditions = append(changed.Status.Conditions, corev1.ReplicationControllerCondition{Type: corev1.ReplicationControllerConditionType(c.Type),
				Status: c.Status, LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message})
		}
		return changed
	})
	s.comparable = func(status *appsv1.ReplicaSetStatus) *appsv1.ReplicaSetStatus {
		known := *status
		known.TerminatingReplicas = nil
		return &known
	}
	return s
}
