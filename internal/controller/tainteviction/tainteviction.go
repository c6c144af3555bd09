// SPDX-License-Identifier: Apache-2.0

// Package tainteviction deletes the pods that do not tolerate a NoExecute taint
// of their node, or no longer do: a toleration may be for some seconds only. The
// controller manager runs it; package nodelifecycle puts such taints on lost
// nodes.
package tainteviction

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/podend"
	"kaji/internal/controller/queue"
)

const (
	podNodeIndex = "controller.node"
	workers      = 8
)

var podKind = corev1.SchemeGroupVersion.WithKind("Pod")

// Controller deletes pods.
type Controller struct {
	pods   client.Typed[*corev1.Pod]
	nodes  client.Typed[*corev1.Node]
	events *event.Recorder
	queue  *queue.Queue[queue.Key]

	mu    sync.Mutex
	timed map[queue.Key]timed // pods that a taint lets stay for a while; guarded by mu
}

// timed is a pod whose time runs.
type timed struct {
	pod   types.UID
	since time.Time
	due   time.Time
}

// New returns the controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{pods: client.For[*corev1.Pod](api), nodes: client.For[*corev1.Node](api),
		events: event.New(api, "taint-eviction-controller", log), timed: map[queue.Key]timed{}}
	c.queue = queue.New("noexec_taint_pod", log, c.reconcile)
	c.pods.AddIndex(podNodeIndex, func(p *corev1.Pod) []string { return []string{p.Spec.NodeName} })
	add := func(pod *corev1.Pod) {
		if pod.Spec.NodeName != "" {
			c.queue.Add(queue.Key{Namespace: pod.Namespace, Name: pod.Name})
		}
	}
	c.pods.AddHandler(client.Handler[*corev1.Pod]{Add: add, Update: func(old, pod *corev1.Pod) {
		if old.Spec.NodeName != pod.Spec.NodeName || !equality.Semantic.DeepEqual(old.Spec.Tolerations, pod.Spec.Tolerations) {
			add(pod)
		}
	}, Delete: add})
	c.nodes.AddHandler(client.Handler[*corev1.Node]{
		Add: func(node *corev1.Node) {
			if len(noExecute(node)) > 0 {
				c.addPods(node)
			}
		},
		Update: func(old, node *corev1.Node) {
			if !equality.Semantic.DeepEqual(noExecute(old), noExecute(node)) {
				c.addPods(node)
			}
		},
	})
	return c
}

func (c *Controller) addPods(node *corev1.Node) {
	for _, pod := range c.pods.ByIndex(podNodeIndex, node.Name) {
		c.queue.Add(queue.Key{Namespace: pod.Namespace, Name: pod.Name})
	}
}

func noExecute(node *corev1.Node) []corev1.Taint {
	var out []corev1.Taint
	for _, t := range node.Spec.Taints {
		if t.Effect == corev1.TaintEffectNoExecute {
			out = append(out, t)
		}
	}
	return out
}

// Run deletes pods until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.pods.Informer(), c.nodes.Informer()) {
		c.queue.Run(ctx, workers)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	pod, err := c.pods.Cached(key.Namespace, key.Name)
	if err != nil || pod.DeletionTimestamp != nil {
		c.forget(key)
		return nil
	}
	node, err := c.nodes.Cached("", pod.Spec.NodeName)
	if err != nil {
		return nil // package podgc sees to pods without a node
	}
	stay, ends := patience(pod, noExecute(node))
	if !ends {
		if c.forget(key) {
			c.events.Record(ctx, pod, podKind, corev1.EventTypeNormal, "TaintManagerEviction", "Cancelling deletion of Pod %s", key)
		}
		return nil
	}
	if left := c.left(key, pod.UID, stay); left > 0 {
		c.queue.AddAfter(key, left)
		return nil
	}
	if err := c.evict(ctx, key, pod); err != nil {
		return err
	}
	c.mu.Lock()
	due := c.timed[key].due
	c.mu.Unlock()
	meter.From(ctx).PodEvicted(due)
	c.forget(key)
	return nil
}

// patience is how long a pod may stay beside taints; ends is false if for ever.
func patience(pod *corev1.Pod, taints []corev1.Taint) (stay time.Duration, ends bool) {
	for i := range taints {
		at := slices.IndexFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return t.ToleratesTaint(klog.Logger{}, &taints[i], true) })
		if at < 0 {
			return 0, true
		}
		if s := pod.Spec.Tolerations[at].TolerationSeconds; s != nil {
			if each := time.Duration(max(0, *s)) * time.Second; !ends || each < stay {
				stay, ends = each, true
			}
		}
	}
	return stay, ends
}

// left is the time that remains of a stay. The time runs from when the pod was
// first seen beside a taint; another taint may shorten but not prolong it.
func (c *Controller) left(key queue.Key, pod types.UID, stay time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, running := c.timed[key]
	if !running || t.pod != pod {
		t = timed{pod: pod, since: time.Now()}
	}
	t.due = t.since.Add(stay)
	c.timed[key] = t
	return time.Until(t.due)
}

// forget stops a pod's time and says whether it ran.
func (c *Controller) forget(key queue.Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ran := c.timed[key]
	delete(c.timed, key)
	return ran
}

func (c *Controller) evict(ctx context.Context, key queue.Key, pod *corev1.Pod) error {
	c.events.Record(ctx, pod, podKind, corev1.EventTypeNormal, "TaintManagerEviction", "Marking for deletion Pod %s", key)
	err := podend.Mark(ctx, c.pods, pod, false, podend.Why{Reason: "DeletionByTaintManager", Message: "Taint manager: deleting due to NoExecute taint", Generation: pod.Generation})
	if err == nil {
		uid := pod.UID
		err = c.pods.Delete(ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
