// SPDX-License-Identifier: Apache-2.0

package podtopologyspread

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"kaji/internal/client"
)

// owners finds which pods belong together: by the services that select a pod
// and by the controller that owns it.
type owners struct {
	services client.Typed[*corev1.Service]
	rcs      client.Typed[*corev1.ReplicationController]
	rss      client.Typed[*appsv1.ReplicaSet]
	sss      client.Typed[*appsv1.StatefulSet]
}

func newOwners(c client.Interface) owners {
	o := owners{client.For[*corev1.Service](c), client.For[*corev1.ReplicationController](c),
		client.For[*appsv1.ReplicaSet](c), client.For[*appsv1.StatefulSet](c)}
	o.services.Informer()
	o.rcs.Informer()
	o.rss.Informer()
	o.sss.Informer()
	return o
}

// selector returns what selects the pods that belong with pod; nil for none.
func (o *owners) selector(pod *corev1.Pod) labels.Selector {
	set := labels.Set{}
	for _, svc := range o.services.CachedList(pod.Namespace, nil) {
		if len(svc.Spec.Selector) > 0 && labels.SelectorFromSet(svc.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			set = labels.Merge(set, svc.Spec.Selector)
		}
	}
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil {
		if len(set) == 0 {
			return nil
		}
		return set.AsSelector()
	}
	var own *metav1.LabelSelector
	switch {
	case owner.Kind == "ReplicationController" && owner.APIVersion == "v1":
		if rc, err := o.rcs.Cached(pod.Namespace, owner.Name); err == nil {
			set = labels.Merge(set, rc.Spec.Selector)
		}
	case owner.Kind == "ReplicaSet" && owner.APIVersion == "apps/v1":
		if rs, err := o.rss.Cached(pod.Namespace, owner.Name); err == nil {
			own = rs.Spec.Selector
		}
	case owner.Kind == "StatefulSet" && owner.APIVersion == "apps/v1":
		if ss, err := o.sss.Cached(pod.Namespace, owner.Name); err == nil {
			own = ss.Spec.Selector
		}
	}
	selector := set.AsSelector()
	if own != nil {
		if parsed, err := metav1.LabelSelectorAsSelector(own); err == nil {
			if reqs, ok := parsed.Requirements(); ok {
				selector = selector.Add(reqs...)
			}
		}
	}
	return selector
}
