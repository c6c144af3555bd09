// SPDX-License-Identifier: Apache-2.0

package crd_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/api"
	kinds "kaji/internal/api/apiextensions"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/cache/cachetest"
	"kaji/internal/apiserver/crd"
	"kaji/internal/client"
)

// slowWrites is an API server that takes its time to write the status of a
// definition.
type slowWrites struct {
	client.Verbs
	bench   *cachetest.Bench
	kind    *api.Kind
	written chan struct{} // one receipt a write

	mu     sync.Mutex
	failed map[string]bool // those that fail once
	served []string
}

func (s *slowWrites) Update(ctx context.Context, _ client.Resource, name string, obj runtime.Object, _ metav1.UpdateOptions) (runtime.Object, error) {
	select {
	case <-s.written:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	failed := s.failed[name]
	delete(s.failed, name)
	s.mu.Unlock()
	if failed {
		return nil, errors.New("the disk is full")
	}
	s.bench.Put(s.kind, obj.(*apiextensionsv1.CustomResourceDefinition))
	return obj, nil
}

// controller runs a controller over definitions whose writes wait for
// permission.
func controller(t *testing.T) *slowWrites {
	kind := kinds.Kinds()[0]
	s := &slowWrites{bench: cachetest.Start(t, cache.Config{}, kind), kind: kind, written: make(chan struct{}), failed: map[string]bool{}}
	c := crd.New(crd.Config{
		Cache: s.bench.Cache, Kind: kind, Client: s,
		Serve: func(k *api.Kind) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.served = append(s.served, k.Resource)
		},
		Unserve: func(k *api.Kind) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.served = append(s.served, "no "+k.Resource)
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

func (s *slowWrites) define(plural, kind string) {
	d := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: plural + ".example.com", UID: types.UID(plural), Generation: 1},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: plural, Singular: plural + "one", Kind: kind, ListKind: kind + "List"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true, Schema: &apiextensionsv1.CustomResourceValidation{
				OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object"},
			}}},
		},
	}
	s.bench.Put(s.kind, d)
}

func (s *slowWrites) log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.served)
}

func (s *slowWrites) stored(t *testing.T, plural string) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	e, found, err := s.bench.Cache.Get(t.Context(), s.kind, "", plural+".example.com")
	if err != nil || !found {
		t.Fatal(found, err)
	}
	return e.Object.(*apiextensionsv1.CustomResourceDefinition)
}

// A definition is served while the statuses of others before it wait to be
// written, and names that were accepted meanwhile are taken.
func TestServedBeforeOthersAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := controller(t)
		for i := range 20 {
			s.define(fmt.Sprintf("slows%d", i), fmt.Sprintf("Slow%d", i))
		}
		<-time.After(time.Second)
		s.define("quicks", "Quick")
		<-time.After(time.Second)
		s.define("thieves", "Quick")
		<-time.After(time.Second)
		if got := s.log(); !slices.Contains(got, "quicks") || slices.Contains(got, "thieves") {
			t.Errorf("served %q, want quicks and not thieves", got)
		}
		if d := s.stored(t, "quicks"); len(d.Status.Conditions) > 0 {
			t.Error("the status was written although no write was let through")
		}

		// Once the writes go on, all are stored as they are served.
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case s.written <- struct{}{}:
				case <-stop:
					return
				}
			}
		}()
		<-time.After(time.Second)
		close(stop)
		for _, plural := range []string{"slows0", "slows19", "quicks"} {
			if d := s.stored(t, plural); !kinds.IsTrue(d, apiextensionsv1.Established) || d.Status.AcceptedNames.Kind == "" {
				t.Errorf("%s: %+v", plural, d.Status)
			}
		}
		if d := s.stored(t, "thieves"); kinds.IsTrue(d, apiextensionsv1.NamesAccepted) || kinds.IsTrue(d, apiextensionsv1.Established) {
			t.Errorf("thieves: %+v", d.Status)
		}
		for _, entry := range s.log() {
			if entry[:3] == "no " {
				t.Errorf("a kind was taken away in between: %q", entry)
			}
		}
	})
}

// A write that fails is tried again.
func TestFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := controller(t)
		s.failed["widgets.example.com"] = true
		s.define("widgets", "Widget")
		for range 3 {
			s.written <- struct{}{}
		}
		<-time.After(time.Second)
		if d := s.stored(t, "widgets"); !kinds.IsTrue(d, apiextensionsv1.Established) {
			t.Errorf("%+v", d.Status)
		}
	})
}
