// SPDX-License-Identifier: Apache-2.0

// Package autoscaler sets the replicas of what HorizontalPodAutoscalers name by
// the metrics they name: of resources, pods, objects and the outside. The
// controller manager runs it; the metrics come from the aggregated APIs
// metrics.k8s.io, custom.metrics.k8s.io and external.metrics.k8s.io.
package autoscaler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
	"kaji/internal/controller/served"
)

const workers = 5

// Settings are what all autoscalers have in common. Make them with Defaults: a
// zero is a setting as well.
type Settings struct {
	// Period is how often an autoscaler looks at its metrics.
	Period time.Duration
	// Tolerance is how far a ratio may be from one without a change, unless the
	// autoscaler says otherwise.
	Tolerance float64
	// DownscaleStabilization is how long a higher recommendation counts before
	// the target shrinks, unless the autoscaler says otherwise.
	DownscaleStabilization time.Duration
	// CPUInitialization is how long a young pod's use of the processor counts
	// only while it is ready, InitialReadiness how soon after its start a pod's
	// first unreadiness is not yet a fact about it.
	CPUInitialization, InitialReadiness time.Duration
}

// Defaults returns upstream's settings.
func Defaults() Settings {
	return Settings{Period: 15 * time.Second, Tolerance: 0.1, DownscaleStabilization: 5 * time.Minute, CPUInitialization: 5 * time.Minute, InitialReadiness: 30 * time.Second}
}

var kind = autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler")

// Controller sets replicas.
type Controller struct {
	api     client.Interface
	scalers client.Typed[*autoscalingv2.HorizontalPodAutoscaler]
	pods    client.Typed[*corev1.Pod]
	metrics *source
	served  served.Lister
	queue   *queue.Queue[queue.Key]
	events  *event.Recorder
	log     *slog.Logger
	// settings do not change.
	settings Settings

	mu        sync.Mutex // guards memories, selectors
	memories  map[queue.Key]*memory
	selectors map[queue.Key]labels.Selector
}

// New returns the controller.
func New(api client.Interface, settings Settings, log *slog.Logger) *Controller {
	c := &Controller{api: api, settings: settings, scalers: client.For[*autoscalingv2.HorizontalPodAutoscaler](api), pods: client.For[*corev1.Pod](api), metrics: &source{api: api},
		served: served.By(api), events: event.New(api, "horizontal-pod-autoscaler", log), log: log,
		memories: map[queue.Key]*memory{}, selectors: map[queue.Key]labels.Selector{}}
	c.queue = queue.New("horizontalpodautoscaler", log, c.reconcile)
	c.pods.Informer() // asked for before Run, so that it runs
	add := func(h *autoscalingv2.HorizontalPodAutoscaler) {
		c.queue.Add(queue.Key{Namespace: h.Namespace, Name: h.Name})
	}
	c.scalers.AddHandler(client.Handler[*autoscalingv2.HorizontalPodAutoscaler]{Add: add,
		Update: func(old, h *autoscalingv2.HorizontalPodAutoscaler) {
			if !equality.Semantic.DeepEqual(old.Spec, h.Spec) {
				add(h)
			}
		}})
	return c
}

// Run sets replicas until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.scalers.Informer(), c.pods.Informer()) {
		c.queue.Run(ctx, workers)
	}
	return nil
}

// reconcile looks at one autoscaler and comes back after a period. What failed
// stands in its conditions and events, and is tried again then, not sooner.
func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	cached, err := c.scalers.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		c.mu.Lock()
		delete(c.memories, key)
		delete(c.selectors, key)
		c.mu.Unlock()
		meter.From(ctx).DesiredReplicas(key.Namespace, key.Name, -1)
		meter.From(ctx).Autoscalers(len(c.scalers.Informer().GetStore().ListKeys()))
		return nil
	}
	if err != nil {
		return err
	}
	l := &look{Controller: c, ctx: ctx, key: key, hpa: cached.DeepCopy(), before: cached, now: time.Now(), memory: c.memoryOf(key)}
	err = errors.Join(l.run(), l.writeStatus())
	if err != nil && c.log != nil {
		c.log.Debug("autoscaling failed", "key", key, "err", err)
	}
	l.count(err)
	c.queue.AddAfter(key, c.settings.Period)
	return nil
}

// outcome are the labels that the metrics have for a decision.
func outcome(current, desired int32, err error) (action, failure string) {
	switch {
	case err != nil:
		return "none", "internal"
	case desired > current:
		return "scale_up", "none"
	case desired < current:
		return "scale_down", "none"
	}
	return "none", "none"
}

// count tells the metrics what came of a look.
func (l *look) count(err error) {
	action, failure := outcome(l.hpa.Status.CurrentReplicas, l.hpa.Status.DesiredReplicas, err)
	m := meter.From(l.ctx)
	m.Scaled(action, failure, l.now)
	m.DesiredReplicas(l.key.Namespace, l.key.Name, l.hpa.Status.DesiredReplicas)
	m.Autoscalers(len(l.scalers.Informer().GetStore().ListKeys()))
}

func (c *Controller) memoryOf(key queue.Key) *memory {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.memories[key]
	if m == nil {
		m = &memory{}
		c.memories[key] = m
	}
	return m
}

// look is one look at one autoscaler.
type look struct {
	*Controller
	ctx    context.Context
	key    queue.Key
	hpa    *autoscalingv2.HorizontalPodAutoscaler // a copy, its status is what will be written
	before *autoscalingv2.HorizontalPodAutoscaler
	now    time.Time
	memory *memory

	resource client.Resource
	scale    *autoscalingv1.Scale
	selector labels.Selector
}

func (l *look) minReplicas() int32 {
	if l.hpa.Spec.MinReplicas != nil {
		return *l.hpa.Spec.MinReplicas
	}
	return 1
}

func (l *look) run() error {
	if err := l.readScale(); err != nil {
		l.warn("FailedGetScale", "%v", err)
		l.condition(autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedGetScale", "the HPA controller was unable to get the target's current scale: %v", err)
		return err
	}
	l.condition(autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededGetScale", "the HPA controller was able to get the target's current scale")
	current, desired, reason := l.scale.Spec.Replicas, int32(0), ""
	l.memory.begin(current, l.now)
	l.hpa.Status.CurrentReplicas, l.hpa.Status.ObservedGeneration = current, &l.hpa.Generation
	ours := l.scaledToZero()
	switch {
	case current == 0 && !(ours && (l.minReplicas() != 0 || l.seesZero())):
		l.condition(autoscalingv2.ScalingActive, corev1.ConditionFalse, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero")
		l.hpa.Status.DesiredReplicas, l.hpa.Status.CurrentMetrics = current, nil
		return nil
	case current > l.hpa.Spec.MaxReplicas:
		desired, reason = l.hpa.Spec.MaxReplicas, "Current number of replicas above Spec.MaxReplicas"
		l.hpa.Status.CurrentMetrics = nil
	case current < l.minReplicas():
		desired, reason = l.minReplicas(), "Current number of replicas below Spec.MinReplicas"
		l.hpa.Status.CurrentMetrics = nil
	default:
		var name string
		var err error
		if desired, name, err = l.compute(); err != nil {
			l.warn("FailedComputeMetricsReplicas", "%v", err)
			return err
		}
		if desired > current {
			reason = name + " above target"
		} else if desired < current {
			reason = "All metrics below target"
		}
		desired = l.normalize(current, desired)
		if current == 0 && desired < l.minReplicas() {
			desired = l.minReplicas()
			if reason == "" {
				reason = "Current number of replicas below Spec.MinReplicas"
			}
		}
	}
	return l.rescale(current, desired, reason)
}

// scaledToZero says whether it was the autoscaler that scaled to zero, and not
// somebody who wants the target stopped.
func (l *look) scaledToZero() bool {
	return slices.ContainsFunc(l.hpa.Status.Conditions, func(c autoscalingv2.HorizontalPodAutoscalerCondition) bool {
		return c.Type == autoscalingv2.ScaledToZero && c.Status == corev1.ConditionTrue
	})
}

// seesZero says whether a metric has a value without pods.
func (l *look) seesZero() bool {
	return slices.ContainsFunc(l.hpa.Spec.Metrics, func(m autoscalingv2.MetricSpec) bool {
		return m.Type == autoscalingv2.ObjectMetricSourceType || m.Type == autoscalingv2.ExternalMetricSourceType
	})
}

// rescale writes the new number, if it is one.
func (l *look) rescale(current, desired int32, reason string) error {
	if desired == current {
		l.hpa.Status.DesiredReplicas = current
		return nil
	}
	if err := l.updateScale(current, desired); err != nil {
		l.warn("FailedRescale", "New size: %d; reason: %s; error: %v", desired, reason, err)
		l.condition(autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedUpdateScale", "the HPA controller was unable to update the target scale: %v", err)
		return err
	}
	l.condition(autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededRescale", "the HPA controller was able to update the target scale to %d", desired)
	if desired == 0 && l.minReplicas() == 0 && l.seesZero() {
		l.condition(autoscalingv2.ScaledToZero, corev1.ConditionTrue, "ScaledToZero", "the HPA controller scaled the workload to zero")
	} else {
		l.condition(autoscalingv2.ScaledToZero, corev1.ConditionFalse, "NotScaledToZero", "the HPA controller did not scale the workload to zero")
	}
	l.events.Record(l.ctx, l.hpa, kind, corev1.EventTypeNormal, "SuccessfulRescale", "New size: %d; reason: %s", desired, reason)
	l.memory.scaled(current, desired, l.now)
	l.hpa.Status.DesiredReplicas = desired
	l.hpa.Status.LastScaleTime = &metav1.Time{Time: l.now}
	return nil
}

// readScale finds the target's scale.
// updateScale writes the new number. A target that has changed since it was
// looked at, its status most likely, is read and written once more as long as
// nobody else has scaled it.
func (l *look) updateScale(current, desired int32) error {
	write := func() error {
		l.scale.Spec.Replicas = desired
		_, err := l.api.Update(l.ctx, l.resource, l.hpa.Spec.ScaleTargetRef.Name, l.scale, metav1.UpdateOptions{})
		return err
	}
	err := write()
	if !apierrors.IsConflict(err) || l.readScale() != nil || l.scale.Spec.Replicas != current {
		return err
	}
	return write()
}

func (l *look) readScale() error {
	ref := &l.hpa.Spec.ScaleTargetRef
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return err
	}
	gvr, err := l.resourceOf(gv.WithKind(ref.Kind))
	if err != nil {
		return err
	}
	l.resource = client.Resource{GroupVersionResource: gvr, Namespace: l.hpa.Namespace, Subresource: "scale"}
	answer, err := l.api.Get(l.ctx, l.resource, ref.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	l.scale, err = client.Scale(answer)
	return err
}

func (l *look) resourceOf(gvk schema.GroupVersionKind) (schema.GroupVersionResource, error) {
	if scheme.Scheme.Recognizes(gvk) {
		gvr, _ := meta.UnsafeGuessKindToResource(gvk)
		return gvr, nil
	}
	all, err := l.served(l.ctx)
	for _, r := range all {
		if r.GroupKind() == gvk.GroupKind() {
			return r.GroupVersionResource, nil
		}
	}
	if err != nil {
		return schema.GroupVersionResource{}, err
	}
	return schema.GroupVersionResource{}, &meta.NoKindMatchError{GroupKind: gvk.GroupKind()}
}

func (l *look) warn(reason, format string, args ...any) {
	l.events.Record(l.ctx, l.hpa, kind, corev1.EventTypeWarning, reason, format, args...)
}

// condition sets a condition; its time changes with its status only.
func (l *look) condition(t autoscalingv2.HorizontalPodAutoscalerConditionType, is corev1.ConditionStatus, reason, format string, args ...any) {
	conditions := &l.hpa.Status.Conditions
	at := -1
	for i := range *conditions {
		if (*conditions)[i].Type == t {
			at = i
		}
	}
	if at < 0 {
		*conditions = append(*conditions, autoscalingv2.HorizontalPodAutoscalerCondition{Type: t})
		at = len(*conditions) - 1
	}
	have := &(*conditions)[at]
	if have.Status != is {
		have.LastTransitionTime = metav1.Time{Time: l.now}
	}
	have.Status, have.Reason, have.Message = is, reason, fmt.Sprintf(format, args...)
}

func (l *look) writeStatus() error {
	if equality.Semantic.DeepEqual(l.hpa.Status, l.before.Status) {
		return nil
	}
	_, err := l.scalers.UpdateStatus(l.ctx, l.hpa)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// select reads the scale's selector and sees to it that no other autoscaler has
// the same pods.
func (l *look) selectPods() error {
	if l.scale.Status.Selector == "" {
		l.warn("SelectorRequired", "selector is required")
		l.condition(autoscalingv2.ScalingActive, corev1.ConditionFalse, "InvalidSelector", "the HPA target's scale is missing a selector")
		return errors.New("selector is required")
	}
	selector, err := labels.Parse(l.scale.Status.Selector)
	if err != nil {
		err = fmt.Errorf("couldn't convert selector into a corresponding internal selector object: %w", err)
		l.warn("InvalidSelector", "%v", err)
		l.condition(autoscalingv2.ScalingActive, corev1.ConditionFalse, "InvalidSelector", "%v", err)
		return err
	}
	l.selector = selector
	if rivals := l.rivals(); len(rivals) > 1 {
		err := fmt.Errorf("pods by selector %v are controlled by more than one HPA (e.g. %v)", l.scale.Status.Selector, rivals[:2])
		l.warn("AmbiguousSelector", "%v", err)
		l.condition(autoscalingv2.ScalingActive, corev1.ConditionFalse, "AmbiguousSelector", "%v", err)
		return err
	}
	return nil
}

// rivals are the autoscalers of the namespace that have the same pods: this one
// first, then the others by name.
func (l *look) rivals() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.selectors[l.key] = l.selector
	pods := l.pods.CachedList(l.key.Namespace, l.selector)
	var out []string
	for key, selector := range l.selectors {
		if key.Namespace != l.key.Namespace {
			continue
		}
		for _, p := range pods {
			if selector.Matches(labels.Set(p.Labels)) {
				out = append(out, key.String())
				break
			}
		}
	}
	own := l.key.String()
	slices.SortFunc(out, func(a, b string) int {
		switch own {
		case a:
			return -1
		case b:
			return 1
		}
		return strings.Compare(a, b)
	})
	return out
}
