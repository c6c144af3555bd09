// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"kaji/internal/client"
)

// kind watches one kind of custom resource and reads its objects, each revision
// once.
type kind[T metav1.Object] struct {
	api     client.Interface
	gvr     schema.GroupVersionResource
	changed func()
	fresh   func() T

	mu       sync.Mutex // guards what follows
	informer cache.SharedIndexInformer
	read     map[types.UID]T
}

// kinds are all that are watched.
type kinds struct {
	classes  *kind[*gatewayv1.GatewayClass]
	gateways *kind[*gatewayv1.Gateway]
	http     *kind[*gatewayv1.HTTPRoute]
	grpc     *kind[*gatewayv1.GRPCRoute]
	tls      *kind[*gatewayv1.TLSRoute]
	grants   *kind[*gatewayv1.ReferenceGrant]
}

func newKinds(api client.Interface, changed func()) kinds {
	return kinds{
		classes:  newKind(api, "v1", "gatewayclasses", changed, func() *gatewayv1.GatewayClass { return &gatewayv1.GatewayClass{} }),
		gateways: newKind(api, "v1", "gateways", changed, func() *gatewayv1.Gateway { return &gatewayv1.Gateway{} }),
		http:     newKind(api, "v1", "httproutes", changed, func() *gatewayv1.HTTPRoute { return &gatewayv1.HTTPRoute{} }),
		grpc:     newKind(api, "v1", "grpcroutes", changed, func() *gatewayv1.GRPCRoute { return &gatewayv1.GRPCRoute{} }),
		tls:      newKind(api, "v1", "tlsroutes", changed, func() *gatewayv1.TLSRoute { return &gatewayv1.TLSRoute{} }),
		// All releases of the definitions serve this version, whose content is v1's.
		grants: newKind(api, "v1beta1", "referencegrants", changed, func() *gatewayv1.ReferenceGrant { return &gatewayv1.ReferenceGrant{} }),
	}
}

func newKind[T metav1.Object](api client.Interface, version, resource string, changed func(), fresh func() T) *kind[T] {
	return &kind[T]{api: api, gvr: schema.GroupVersionResource{Group: gatewayv1.GroupName, Version: version, Resource: resource}, changed: changed, fresh: fresh,
		read: map[types.UID]T{}}
}

const (
	firstLook = 500 * time.Millisecond
	lastLook  = 15 * time.Second
)

// await waits until the kind is defined and its objects are there; false says
// that ctx ended before.
func (k *kind[T]) await(ctx context.Context) bool {
	for delay := firstLook; ; delay = min(2*delay, lastLook) {
		// A version that is not served is not found, also by who may not list it.
		if _, err := k.api.List(ctx, client.Resource{GroupVersionResource: k.gvr}, metav1.ListOptions{Limit: 1}); err == nil {
			break
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return false
		}
	}
	informer := k.api.Informer(k.gvr, client.InformerOptions{Dynamic: true})
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { k.changed() }, DeleteFunc: func(any) { k.changed() },
		UpdateFunc: func(old, now any) {
			a, aok := old.(metav1.Object)
			b, bok := now.(metav1.Object)
			if !aok || !bok || a.GetResourceVersion() != b.GetResourceVersion() {
				k.changed()
			}
		}}); err != nil {
		return false // it has ended
	}
	if !client.WaitForSync(ctx, informer) {
		return false
	}
	k.mu.Lock()
	k.informer = informer
	k.mu.Unlock()
	k.changed()
	return true
}

// list returns all objects; they must not be changed. It is empty before await
// has returned.
func (k *kind[T]) list() []T {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.informer == nil {
		return nil
	}
	var out []T
	read := map[types.UID]T{}
	for _, o := range k.informer.GetStore().List() {
		u, ok := o.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		known, ok := k.read[u.GetUID()]
		if !ok || known.GetResourceVersion() != u.GetResourceVersion() {
			known = k.fresh()
			// What does not fit its definition was refused at the door.
			if runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, known) != nil {
				continue
			}
		}
		read[u.GetUID()] = known
		out = append(out, known)
	}
	k.read = read
	return out
}

func sameLabels(a, b *corev1.Namespace) bool { return maps.Equal(a.Labels, b.Labels) }
