// SPDX-License-Identifier: Apache-2.0

// Package source tells which pods this node is to run: those that the API
// server has bound to it, and static ones from files. Every source speaks to
// the same Sink.
package source

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"kaji/internal/client"
	"kaji/internal/kubelet/podspec"
)

// Sink takes what sources tell. Calls come one at a time from each source.
type Sink interface {
	// Add tells of a pod that is new or changed.
	Add(pod *corev1.Pod)
	// Gone tells of a pod that the source has no more.
	Gone(pod *corev1.Pod)
	// Mirror tells of the API server's copy of a static pod; gone says that it
	// has been deleted.
	Mirror(pod *corev1.Pod, gone bool)
}

// Pods is the view of the pods that are bound to a node.
func Pods(c client.Interface, node string) client.Typed[*corev1.Pod] {
	return client.For[*corev1.Pod](c).With(client.InformerOptions{FieldSelector: "spec.nodeName=" + node})
}

// API passes the API server's pods on to a sink, from the moment of the call.
func API(c client.Interface, node string, sink Sink) cache.ResourceEventHandlerRegistration {
	add := func(pod *corev1.Pod) {
		if podspec.Mirror(pod) {
			sink.Mirror(pod, false)
			return
		}
		sink.Add(pod)
	}
	return Pods(c, node).AddHandler(client.Handler[*corev1.Pod]{
		Add:    add,
		Update: func(_, pod *corev1.Pod) { add(pod) },
		Delete: func(pod *corev1.Pod) {
			if podspec.Mirror(pod) {
				sink.Mirror(pod, true)
				return
			}
			sink.Gone(pod)
		},
	})
}
