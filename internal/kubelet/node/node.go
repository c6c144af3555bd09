// SPDX-License-Identifier: Apache-2.0

// Package node keeps this machine's Node object: it registers it, says every
// ten seconds by a Lease that it is alive, and writes its status when something
// changed and every five minutes in any case. What the machine is (machine.go)
// is read once; what it has left is told by the parts that know.
package node

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/tools/record"

	"kaji/internal/client"
)

// Config is what a Node is made of.
type Config struct {
	Name   string
	Client client.Interface
	// Node returns the informer's copy of the Node, nil where there is none.
	Node     func() *corev1.Node
	Recorder record.EventRecorder
	Logger   *slog.Logger

	// Addresses are the node's own, the primary one first; Hostname is its name.
	Addresses  []netip.Addr
	Hostname   string
	Labels     map[string]string
	Taints     []corev1.Taint
	ProviderID string
	// ExternalCloud leaves addresses to a cloud controller and taints the node
	// until that has seen it.
	ExternalCloud bool
	Unschedulable bool
	// NoRegister leaves it to others to make the Node.
	NoRegister bool
	// Port is that of the agent's server.
	Port int32

	Machine Machine
	// Resources add to what the machine has: pods, and devices, of which some may
	// not be usable.
	Resources func() (capacity, allocatable corev1.ResourceList)
	// Fresh says that the agent has never run here: what an existing Node has of
	// extended resources is gone.
	Fresh bool
	// Reserved is kept from pods.
	Reserved corev1.ResourceList
	// Registered gets the node as it is found or made, before its first status: what
	// it says of the network must not be news to the network then.
	Registered func(*corev1.Node)
	// Startup is told of a node that was made, and again when it is ready first; nil is
	// told nothing.
	Startup func(Startup)
	// Runtime tells the runtime's name and version, and whether it and the
	// network are ready.
	Runtime func(ctx context.Context) Runtime
	// Images lists the images on the node, the largest first.
	Images func(ctx context.Context) []corev1.ContainerImage
	// Pressure tells which of MemoryPressure, DiskPressure and PIDPressure hold.
	Pressure func() map[corev1.NodeConditionType]bool
	// NotReady adds reasons why the node is not ready; nil for none.
	NotReady func() []string
	Version  string
	// Notices are recorded as events once the node is registered.
	Notices func() []Notice

	// Beat is the interval of heartbeats, Report that of statuses without news;
	// zero means 10 s and 5 min.
	Beat, Report time.Duration
	// LeaseDuration is what the Lease promises; zero means 40 s.
	LeaseDuration time.Duration
}

// Startup is when the node was tried to be made first, when that succeeded, and when it
// was ready, zero if it is not yet.
type Startup struct{ Attempt, Registered, Ready time.Time }

// Notice is an event about the node; Type is "Normal" or "Warning".
type Notice struct{ Type, Reason, Message string }

// Runtime is what the container runtime says of itself.
type Runtime struct {
	// Version is "name://version".
	Version string
	// Problems are why it or the network is not ready; none means ready.
	Problems []string
	Handlers []corev1.NodeRuntimeHandler
	// SupplementalGroupsPolicy is a feature of the runtime.
	SupplementalGroupsPolicy bool
}

// Keeper keeps the Node object.
type Keeper struct {
	cfg  Config
	wake chan struct{}
	mu   struct {
		sync.Mutex
		inUse     []corev1.UniqueVolumeName
		stopping  string
		published time.Time
		known     bool // a status was written
		// unschedulable is what was told last.
		unschedulable bool
		startup       Startup
		ready         corev1.ConditionStatus
	}
}

// New returns a Keeper; it does nothing before Run.
func New(cfg Config) *Keeper {
	if cfg.Beat == 0 {
		cfg.Beat = 10 * time.Second
	}
	if cfg.Report == 0 {
		cfg.Report = 5 * time.Minute
	}
	if cfg.LeaseDuration == 0 {
		cfg.LeaseDuration = 40 * time.Second
	}
	return &Keeper{cfg: cfg, wake: make(chan struct{}, 1)}
}

// Wake makes the status be looked at now.
func (k *Keeper) Wake() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// SetVolumesInUse tells the attachable volumes that pods use.
func (k *Keeper) SetVolumesInUse(volumes []corev1.UniqueVolumeName) {
	k.mu.Lock()
	changed := !slices.Equal(k.mu.inUse, volumes)
	k.mu.inUse = volumes
	k.mu.Unlock()
	if changed {
		k.Wake()
	}
}

// Stopping makes the node not ready for good: it is shutting down.
func (k *Keeper) Stopping(message string) {
	k.mu.Lock()
	k.mu.stopping = message
	k.mu.Unlock()
	k.Wake()
}

// Run registers the node and keeps it until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	node := k.register(ctx)
	if node == nil {
		return nil // ctx ended
	}
	if k.cfg.Registered != nil {
		k.cfg.Registered(node)
	}
	k.event(corev1.EventTypeNormal, "Starting", "Starting kubelet.")
	if k.cfg.Notices != nil {
		for _, n := range k.cfg.Notices() {
			k.event(n.Type, n.Reason, "%s", n.Message)
		}
	}
	k.announce(&corev1.NodeStatus{}, &corev1.NodeStatus{Conditions: slices.DeleteFunc(k.status(ctx, node).Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady || !owned(c.Type)
	})})
	var lease sync.WaitGroup
	uid := node.UID
	lease.Go(func() { k.beat(ctx, uid) })
	defer lease.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-k.wake:
		}
		wait := k.cfg.Beat
		answer, err := k.publish(ctx, node)
		switch {
		case err != nil && ctx.Err() == nil:
			k.cfg.Logger.Warn("node status was not written", "err", err)
			wait = time.Second
			if apierrors.IsNotFound(err) {
				if answer = k.register(ctx); answer == nil {
					return nil
				}
			}
		case !k.Ready():
			wait = 200 * time.Millisecond // becoming ready is worth a closer look
			if time.Since(k.lastPublished()) > 2*time.Second {
				wait = 2 * time.Second
			}
		}
		if answer != nil {
			node = answer
		}
		timer.Reset(wait)
	}
}

func (k *Keeper) lastPublished() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mu.published
}

// Ready says whether the node was ready when last looked at.
func (k *Keeper) Ready() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mu.ready == corev1.ConditionTrue
}

func (k *Keeper) event(kind, reason, format string, args ...any) {
	// Node events refer to the name: the node may not be registered yet.
	k.cfg.Recorder.Eventf(&corev1.ObjectReference{Kind: "Node", Name: k.cfg.Name, UID: types.UID(k.cfg.Name)}, kind, reason, format, args...)
}

// register creates the node, or brings an existing one to today's labels. It
// tries until it succeeds; nil says that ctx ended.
func (k *Keeper) register(ctx context.Context) *corev1.Node {
	k.mu.Lock()
	if k.mu.startup.Attempt.IsZero() {
		k.mu.startup.Attempt = time.Now()
	}
	k.mu.Unlock()
	wait := 100 * time.Millisecond
	nodes := client.For[*corev1.Node](k.cfg.Client)
	for {
		var node *corev1.Node
		var err error
		if k.cfg.NoRegister {
			if node, err = nodes.Get(ctx, "", k.cfg.Name); err == nil {
				return node
			}
		} else if node, err = nodes.Create(ctx, k.initial(ctx)); err == nil {
			k.started(false)
			return node
		}
		if apierrors.IsAlreadyExists(err) {
			if node, err = nodes.Get(ctx, "", k.cfg.Name); err == nil {
				if node, err = k.refresh(ctx, node); err == nil {
					return node
				}
			}
		}
		if ctx.Err() == nil {
			k.cfg.Logger.Warn("node is not registered yet", "node", k.cfg.Name, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
			wait = min(wait*2, 7*time.Second)
		}
	}
}

func (k *Keeper) labels() map[string]string {
	labels := map[string]string{
		corev1.LabelHostname: k.cfg.Hostname, corev1.LabelOSStable: k.cfg.Machine.OS, corev1.LabelArchStable: k.cfg.Machine.Arch,
		"beta.kubernetes.io/os": k.cfg.Machine.OS, "beta.kubernetes.io/arch": k.cfg.Machine.Arch,
	}
	maps.Copy(labels, k.cfg.Labels)
	return labels
}

func (k *Keeper) initial(ctx context.Context) *corev1.Node {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: k.cfg.Name, Labels: k.labels(),
			Annotations: map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
		Spec: corev1.NodeSpec{Unschedulable: k.cfg.Unschedulable, ProviderID: k.cfg.ProviderID, Taints: slices.Clone(k.cfg.Taints)},
	}
	if k.cfg.Unschedulable {
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	if k.cfg.ExternalCloud {
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: "node.cloudprovider.kubernetes.io/uninitialized", Value: "true", Effect: corev1.TaintEffectNoSchedule})
	}
	node.Status = k.status(ctx, node)
	return node
}

// refresh writes the labels and annotations that an existing node lacks.
func (k *Keeper) refresh(ctx context.Context, node *corev1.Node) (*corev1.Node, error) {
	changed := node.DeepCopy()
	if changed.Labels == nil {
		changed.Labels = map[string]string{}
	}
	maps.Copy(changed.Labels, k.labels())
	if changed.Annotations == nil {
		changed.Annotations = map[string]string{}
	}
	changed.Annotations["volumes.kubernetes.io/controller-managed-attach-detach"] = "true"
	if changed.Spec.ProviderID == "" {
		changed.Spec.ProviderID = k.cfg.ProviderID
	}
	if reflect.DeepEqual(changed, node) {
		return node, nil
	}
	return k.patch(ctx, node, changed, "")
}

func (k *Keeper) patch(ctx context.Context, before, after *corev1.Node, subresource string) (*corev1.Node, error) {
	old, err := json.Marshal(before)
	if err != nil {
		return nil, fmt.Errorf("marshal node: %w", err)
	}
	fresh, err := json.Marshal(after)
	if err != nil {
		return nil, fmt.Errorf("marshal node: %w", err)
	}
	data, err := strategicpatch.CreateTwoWayMergePatch(old, fresh, corev1.Node{})
	if err != nil {
		return nil, fmt.Errorf("patch node: %w", err)
	}
	return client.For[*corev1.Node](k.cfg.Client).Patch(ctx, "", before.Name, types.StrategicMergePatchType, data, subresource)
}

// publish writes the status if it changed or if it is time.
func (k *Keeper) publish(ctx context.Context, known *corev1.Node) (*corev1.Node, error) {
	node := known
	if cached := k.cfg.Node(); cached != nil && cached.UID == known.UID && cached.ResourceVersion != "" && !older(cached, known) {
		node = cached
	}
	k.schedulable(node.Spec.Unschedulable)
	changed := node.DeepCopy()
	changed.Status = k.status(ctx, node)
	k.mu.Lock()
	due := time.Since(k.mu.published) >= k.cfg.Report
	k.mu.Unlock()
	if !due && same(&node.Status, &changed.Status) {
		return nil, nil
	}
	answer, err := k.patch(ctx, node, changed, "status")
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	k.mu.published, k.mu.known = time.Now(), true
	k.mu.Unlock()
	k.announce(&node.Status, &changed.Status)
	if k.Ready() {
		k.started(true)
	}
	return answer, nil
}

// started notes that the node was made, or that it is ready, the first time of each.
func (k *Keeper) started(ready bool) {
	k.mu.Lock()
	at := &k.mu.startup.Registered
	if ready {
		at = &k.mu.startup.Ready
	}
	// A node that was there before the agent does not start up.
	fresh := at.IsZero() && (!ready || !k.mu.startup.Registered.IsZero())
	if fresh {
		*at = time.Now()
	}
	startup := k.mu.startup
	k.mu.Unlock()
	if fresh && k.cfg.Startup != nil {
		k.cfg.Startup(startup)
	}
}

// schedulable records an event where pods may be bound to the node, or no longer.
func (k *Keeper) schedulable(not bool) {
	k.mu.Lock()
	was := k.mu.unschedulable
	k.mu.unschedulable = not
	k.mu.Unlock()
	if was == not {
		return
	}
	reason := "NodeSchedulable"
	if not {
		reason = "NodeNotSchedulable"
	}
	k.event(corev1.EventTypeNormal, reason, "Node %s status is now: %s", k.cfg.Name, reason)
}

// announce records events for conditions that turned.
func (k *Keeper) announce(old, fresh *corev1.NodeStatus) {
	if was, is := old.NodeInfo.BootID, fresh.NodeInfo.BootID; was != "" && is != "" && was != is {
		k.event(corev1.EventTypeWarning, "Rebooted", "Node %s has been rebooted, boot id: %s", k.cfg.Name, is)
	}
	for _, c := range fresh.Conditions {
		before := condition(old.Conditions, c.Type)
		if before != nil && before.Status == c.Status {
			continue
		}
		if !owned(c.Type) {
			continue
		}
		reason := "Node" + strings.TrimPrefix(c.Reason, "Kubelet")
		if c.Type == corev1.NodeReady {
			reason = "NodeNotReady"
			if c.Status == corev1.ConditionTrue {
				reason = "NodeReady"
			}
		}
		k.event(corev1.EventTypeNormal, reason, "Node %s status is now: %s", k.cfg.Name, reason)
	}
}

// owned says whether a condition is this agent's to tell.
func owned(t corev1.NodeConditionType) bool {
	return t == corev1.NodeReady || t == corev1.NodeMemoryPressure || t == corev1.NodeDiskPressure || t == corev1.NodePIDPressure
}

func condition(list []corev1.NodeCondition, t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range list {
		if list[i].Type == t {
			return &list[i]
		}
	}
	return nil
}

// same compares statuses but for the times of heartbeats.
func same(a, b *corev1.NodeStatus) bool {
	strip := func(s *corev1.NodeStatus) *corev1.NodeStatus {
		c := s.DeepCopy()
		for i := range c.Conditions {
			c.Conditions[i].LastHeartbeatTime = metav1.Time{}
			c.Conditions[i].LastTransitionTime = metav1.Time{}
		}
		return c
	}
	left, err := json.Marshal(strip(a))
	if err != nil {
		return false
	}
	right, err := json.Marshal(strip(b))
	return err == nil && string(left) == string(right)
}

func older(a, b *corev1.Node) bool {
	left, err := strconv.ParseUint(a.ResourceVersion, 10, 64)
	if err != nil {
		return false
	}
	right, err := strconv.ParseUint(b.ResourceVersion, 10, 64)
	return err == nil && left < right
}
