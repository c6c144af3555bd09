// SPDX-License-Identifier: Apache-2.0

// Package plugin is the seam between the scheduler and its plugins: one
// interface for each extension point, named as upstream names it. A plugin
// implements Plugin and those points it has something to say at; each child
// package holds one plugin and knows no sibling.
//
// PreFilter and Filter are one call here, as are PreScore and Score: the
// plugin prepares itself for a pod and returns a function of a node, or none
// when it has nothing to say about that pod.
//
// All points but PreBind, Bind and PostBind are called by the scheduling loop
// alone, one at a time: plugins need no locks for what they keep.
package plugin

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/scheduler/snapshot"
)

// Plugin is a named part of a profile.
type Plugin interface{ Name() string }

// Signer tells pods apart that its plugin judges differently. Pods with equal
// signatures share one judgement of every node until the node changes.
type Signer interface {
	Plugin
	// Sign appends what of the pod the plugin's filter and score depend on
	// besides the node itself. False means that they depend on more, so that
	// every attempt must ask anew.
	Sign(c *Cycle, key []byte) ([]byte, bool)
}

// PreEnqueuer is asked before a pod enters the active queue.
type PreEnqueuer interface {
	Plugin
	PreEnqueue(pod *corev1.Pod) *Status
}

// Filter is a plugin's prepared judgement of nodes for one pod.
type Filter struct {
	// Node judges one node; nil when there is nothing to check.
	Node func(n *snapshot.Node) *Status
	// Only, when not nil, are the names of the only nodes to look at.
	Only []string
}

// Filterer is PreFilter and Filter. A status that is not Success ends the
// attempt; Skip is not used (return the zero Filter).
type Filterer interface {
	Plugin
	Filter(ctx context.Context, c *Cycle) (Filter, *Status)
}

// PostFilterer is asked when no node fits.
type PostFilterer interface {
	Plugin
	PostFilter(ctx context.Context, c *Cycle) (*Nomination, *Status)
}

// Nomination says what becomes of the pod's nominatedNodeName: it is set to
// NodeName, also when that is empty. A nil *Nomination leaves it.
type Nomination struct{ NodeName string }

// MaxScore is the highest score after normalization.
const MaxScore int64 = 100

// Score is a plugin's prepared valuation of nodes for one pod.
type Score struct {
	// Node values one node; nil when all are alike to the plugin.
	Node func(n *snapshot.Node) int64
	// Normalize brings the scores of all feasible nodes to 0..MaxScore; nil
	// when they are there already.
	Normalize func(scores []int64)
}

// Scorer is PreScore and Score. A plugin whose Signer agreed to share gets no
// nodes and must not look at them.
type Scorer interface {
	Plugin
	Score(ctx context.Context, c *Cycle, feasible []*snapshot.Node) (Score, *Status)
}

// Reserver keeps what the pod will use from being given to others.
type Reserver interface {
	Plugin
	Reserve(ctx context.Context, c *Cycle, nodeName string) *Status
	// Unreserve undoes Reserve, also one that failed or was never called.
	Unreserve(ctx context.Context, c *Cycle, nodeName string)
}

// Permitter may hold a reserved pod back: a Wait status with a timeout makes
// the pod wait for Handle.Allow or Handle.Reject.
type Permitter interface {
	Plugin
	Permit(ctx context.Context, c *Cycle, nodeName string) (*Status, time.Duration)
}

// PreBinder does what must be done before binding. It runs beside the loop.
type PreBinder interface {
	Plugin
	// WillPreBind says, in the loop, whether there is anything to do.
	WillPreBind(c *Cycle) bool
	PreBind(ctx context.Context, c *Cycle, nodeName string) *Status
}

// Binder binds the pod, or answers Skip. It runs beside the loop.
type Binder interface {
	Plugin
	Bind(ctx context.Context, c *Cycle, nodeName string) *Status
}

// Eventer names the events that may make a pod schedulable which the plugin
// rejected. A plugin that rejects and is no Eventer is retried on any event.
type Eventer interface {
	Plugin
	Events() []EventHint
}

// Cycle is one attempt to place one pod.
type Cycle struct {
	Pod      *snapshot.Pod
	Snapshot *snapshot.Snapshot
	// State is what plugins keep from one point to a later one of the attempt.
	State map[string]any
	// Statuses are the judgements of all nodes by slot, for PostFilter; nil
	// entries are nodes that were not looked at.
	Statuses []*Status
	// Refused says that a plugin refused the pod before nodes were judged.
	Refused bool
	// Fits runs all filters on a node, nominated pods of at least the pod's
	// priority taken as placed. It follows changes made within
	// Snapshot.Simulate. Valid until the end of PostFilter.
	Fits func(ctx context.Context, n *snapshot.Node) *Status
	// Keep lets Fits stay valid past later attempts for other pods.
	Keep bool
	// Extenders take part in preemption; see Extender.
	Extenders []Extender
	// Timed says that the attempt's calls of plugins are timed one by one.
	Timed bool
}

// Put keeps a value for a later point.
func (c *Cycle) Put(key string, v any) {
	if c.State == nil {
		c.State = map[string]any{}
	}
	c.State[key] = v
}

// Extender is an HTTP extender as preemption needs it.
type Extender interface {
	Name() string
	Ignorable() bool
	SupportsPreemption() bool
	IsInterested(pod *corev1.Pod) bool
	// ProcessPreemption narrows victims by node.
	ProcessPreemption(ctx context.Context, pod *corev1.Pod, victims map[string]*Victims) (map[string]*Victims, error)
}

// Victims are the pods to evict from one node, the most important first.
type Victims struct {
	Pods             []*corev1.Pod
	NumPDBViolations int64
}

// Handle is what plugins may use of the scheduler.
type Handle interface {
	Client() client.Interface
	ProfileName() string
	// Event records an event about regarding; related may be nil.
	Event(regarding, related client.Object, eventType, reason, action, note string)
	// Go runs f beside the loop; the scheduler waits for it when it stops.
	Go(f func(ctx context.Context))
	// Post runs f in the loop, soon.
	Post(f func())
	// Activate moves pending pods to the active queue.
	Activate(uids ...types.UID)
	// Gated returns the plugin that keeps a pod from the active queue, "" for none.
	Gated(uid types.UID) string
	// Waiting calls yield for every pod held back at Permit.
	Waiting(yield func(pod *corev1.Pod, nodeName string))
	// Allow and Reject end a pod's waiting at Permit; false when it does not wait.
	Allow(uid types.UID, plugin string) bool
	Reject(uid types.UID, plugin, reason string) bool
	// Pods returns the pod from the informer, nil when it is gone.
	PodByName(namespace, name string) *corev1.Pod
	// Preempted counts an attempt to preempt; victims is 0 when none was found.
	Preempted(victims int)
	// PreemptedByGroup is Preempted for a group of pods.
	PreemptedByGroup(result Code, victims int)
	// Evicted reports, from beside the loop, how the evictions for one preemptor went.
	Evicted(took time.Duration, err error)
}
