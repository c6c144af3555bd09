// SPDX-License-Identifier: Apache-2.0

// Package cachetest runs a cache over a memory store for the tests of what
// reads from it.
package cachetest

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/request"
	"kaji/internal/store"
	"kaji/internal/store/memory"
)

// Bench is a running cache and the store under it.
type Bench struct {
	Store store.Store
	Cache *cache.Cache

	t testing.TB
}

// Start runs a cache of kinds until the test ends.
func Start(t testing.TB, cfg cache.Config, kinds ...*api.Kind) *Bench {
	b := &Bench{Store: memory.New(), t: t}
	cfg.Store, cfg.Decode = b.Store, codec.DecodeStored
	b.Cache = cache.New(cfg)
	b.Cache.Add(kinds...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = b.Cache.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; b.Store.Close() })
	return b
}

// Put stores an object and returns its revision once the cache has it.
func (b *Bench) Put(kind *api.Kind, obj api.Object) int64 {
	b.t.Helper()
	value, err := codec.EncodeStored(kind, obj)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.commit(store.Op{Key: kind.Key(obj.GetNamespace(), obj.GetName()), Value: value})
}

// Delete removes an object and returns the revision of that.
func (b *Bench) Delete(kind *api.Kind, namespace, name string) int64 {
	b.t.Helper()
	return b.commit(store.Op{Key: kind.Key(namespace, name), Delete: true})
}

func (b *Bench) commit(op store.Op) int64 {
	b.t.Helper()
	r, err := b.Store.Commit(b.t.Context(), store.Txn{Ops: []store.Op{op}})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.Cache.WaitFor(b.t.Context(), r.Revision); err != nil {
		b.t.Fatal(err)
	}
	return r.Revision
}

// Pods is a kind of pods that can be selected by node.
func Pods() *api.Kind {
	gv := schema.GroupVersion{Version: "v1"}
	newPod := func() api.Object { return &corev1.Pod{} }
	newList := func() runtime.Object { return &corev1.PodList{} }
	return &api.Kind{
		Name: "Pod", Resource: "pods", Singular: "pod", Namespaced: true,
		Versions: []api.Version{{GroupVersion: gv, New: newPod, NewList: newList}},
		Storage:  gv, Prefix: "/registry/pods", New: newPod, NewList: newList,
		IndexedFields: []string{"spec.nodeName"},
		Rules: api.For[*corev1.Pod]{
			Fields: func(p *corev1.Pod) fields.Set { return fields.Set{"spec.nodeName": p.Spec.NodeName} },
		}.Rules(),
	}
}

// Pod returns a pod on a node.
func Pod(namespace, name, node string, labels map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec:       corev1.PodSpec{NodeName: node},
	}
}

// Served returns a kind as its preferred version serves it.
func Served(kind *api.Kind) *request.Served { return request.ServedOf(kind, &kind.Versions[0]) }
