// SPDX-License-Identifier: Apache-2.0

// Package secret holds those Secrets that Ingresses and Gateways refer to, by one
// watch for each: no other Secret comes near the component. Certificates and
// lists of passwords are read once per revision.
package secret

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"kaji/internal/client"
	"kaji/internal/ingress/gate"
)

// Watcher watches Secrets. It is safe for concurrent use.
type Watcher struct {
	api     client.Interface
	changed func()
	running sync.WaitGroup

	mu      sync.RWMutex
	entries map[types.NamespacedName]*Entry
}

// Entry is one Secret, read. It must not be changed.
type Entry struct {
	stop context.CancelFunc
	// known is set with the first answer of the server.
	known bool
	// Exists is false of a Secret that is not there.
	Exists bool
	// Certificate is that of a TLS Secret; Err says why there is none.
	Certificate *tls.Certificate
	Err         error
	// File are the passwords of the htpasswd file "auth", if there is one; Map
	// has the keys as names.
	File, Map *gate.Passwords
}

// New returns a watcher that calls changed whenever a Secret is another.
func New(api client.Interface, changed func()) *Watcher {
	return &Watcher{api: api, changed: changed, entries: map[types.NamespacedName]*Entry{}}
}

// Wait returns once all watches have ended, which they do with their context.
func (s *Watcher) Wait() { s.running.Wait() }

// Watch makes the wanted Secrets those that are watched.
func (s *Watcher) Watch(ctx context.Context, wanted map[types.NamespacedName]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, e := range s.entries {
		if !wanted[name] {
			e.stop()
			delete(s.entries, name)
		}
	}
	for name := range wanted {
		if s.entries[name] == nil {
			inner, stop := context.WithCancel(ctx)
			s.entries[name] = &Entry{stop: stop}
			s.running.Go(func() { s.follow(inner, name) })
		}
	}
}

func (s *Watcher) follow(ctx context.Context, name types.NamespacedName) {
	r := client.For[*corev1.Secret](s.api).Resource(name.Namespace)
	selector := "metadata.name=" + name.Name
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.FieldSelector = selector
				return s.api.List(ctx, r, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				o.FieldSelector = selector
				return s.api.Watch(ctx, r, o)
			},
		},
		ObjectType: &corev1.Secret{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { s.take(ctx, name, o) },
			UpdateFunc: func(_, o any) { s.take(ctx, name, o) },
			DeleteFunc: func(any) { s.take(ctx, name, nil) },
		},
	})
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) && len(store.List()) == 0 {
			s.take(ctx, name, nil)
		}
	})
	informer.RunWithContext(ctx)
	waiting.Wait()
}

// take reads a new state; nil is a Secret that is not there.
func (s *Watcher) take(ctx context.Context, name types.NamespacedName, o any) {
	next := Entry{known: true}
	if secret, ok := o.(*corev1.Secret); ok {
		next.Exists = true
		next.Certificate, next.Err = certificate(secret)
		if file, ok := secret.Data["auth"]; ok {
			next.File = gate.ParsePasswords(file)
		}
		next.Map = gate.PasswordMap(secret.Data)
	}
	s.mu.Lock()
	if now := s.entries[name]; now != nil && ctx.Err() == nil {
		next.stop = now.stop
		s.entries[name] = &next
	}
	s.mu.Unlock()
	s.changed()
}

// Get returns a Secret, or nil while nothing is known of it.
func (s *Watcher) Get(name types.NamespacedName) *Entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.entries[name]; e != nil && e.known {
		return e
	}
	return nil
}

// certificate reads a Secret's certificate and key.
func certificate(secret *corev1.Secret) (*tls.Certificate, error) {
	chain, key := secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]
	if len(chain) == 0 || len(key) == 0 {
		return nil, fmt.Errorf("it lacks %s or %s", corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		// The parser's words could quote what it read.
		return nil, errors.New("its certificate and key cannot be read, or do not belong together")
	}
	return &pair, nil
}
