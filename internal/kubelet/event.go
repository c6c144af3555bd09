// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"

	"kaji/internal/client"
)

// eventSink writes events; it implements client-go's record.EventSink.
type eventSink struct {
	ctx    context.Context //nolint:containedctx // the interface has no place for one
	client client.Interface
	limit  flowcontrol.RateLimiter // nil for none
}

func newEventSink(ctx context.Context, cfg Config) eventSink {
	s := eventSink{ctx: ctx, client: cfg.Client}
	if cfg.EventQPS > 0 {
		s.limit = flowcontrol.NewTokenBucketRateLimiter(cfg.EventQPS, max(cfg.EventBurst, 1))
	}
	return s
}

// wait holds writing back where there is too much of it.
func (s eventSink) wait() error {
	if s.limit == nil {
		return nil
	}
	return s.limit.Wait(s.ctx)
}

var _ record.EventSink = eventSink{}

func (s eventSink) resource(e *corev1.Event) client.Resource {
	return client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("events"), Namespace: e.Namespace}
}

func event(o runtime.Object, err error) (*corev1.Event, error) {
	if err != nil {
		return nil, err
	}
	e, ok := o.(*corev1.Event)
	if !ok {
		return nil, fmt.Errorf("the server answered with a %T, want an Event", o)
	}
	return e, nil
}

// Create implements record.EventSink.
func (s eventSink) Create(e *corev1.Event) (*corev1.Event, error) {
	if err := s.wait(); err != nil {
		return nil, err
	}
	return event(s.client.Create(s.ctx, s.resource(e), "", e, metav1.CreateOptions{}))
}

// Update implements record.EventSink.
func (s eventSink) Update(e *corev1.Event) (*corev1.Event, error) {
	if err := s.wait(); err != nil {
		return nil, err
	}
	return event(s.client.Update(s.ctx, s.resource(e), e.Name, e, metav1.UpdateOptions{}))
}

// Patch implements record.EventSink.
func (s eventSink) Patch(e *corev1.Event, data []byte) (*corev1.Event, error) {
	if err := s.wait(); err != nil {
		return nil, err
	}
	return event(s.client.Patch(s.ctx, s.resource(e), e.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{}))
}

// setupFailed tells of an agent that is about to end. It waits until that is written,
// some seconds.
func (k *Kubelet) setupFailed(ctx context.Context, why error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	now := metav1.Now()
	_, err := eventSink{ctx: ctx, client: k.cfg.Client}.Create(&corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: fmt.Sprintf("%s.%x", k.cfg.NodeName, now.UnixNano())}, InvolvedObject: *k.nodeReference(),
		Type: corev1.EventTypeWarning, Reason: "KubeletSetupFailed", Message: why.Error(), Count: 1, FirstTimestamp: now, LastTimestamp: now,
		Source: corev1.EventSource{Component: "kubelet", Host: k.cfg.NodeName}, ReportingController: "kubelet", ReportingInstance: k.cfg.NodeName})
	if err != nil {
		k.log.Warn("an event was not written", "reason", "KubeletSetupFailed", "err", err)
	}
}
