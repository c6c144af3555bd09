// SPDX-License-Identifier: Apache-2.0

package aggregate

import (
	"context"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
)

// loop is the state of one Run.
type loop struct {
	a *Aggregator
	// own are the APIServices; services and slices are followed while an
	// APIService names a Service.
	own, services, slices feed
	turns                 turns
	checks                sync.WaitGroup
	checked               chan outcome
	local                 []*api.Kind // what local APIServices were kept for
}

// outcome is what looking at an APIService came to.
type outcome struct {
	name   string
	failed bool
}

// Run keeps APIServices until ctx ends.
func (a *Aggregator) Run(ctx context.Context) error {
	l := &loop{
		a: a, turns: turns{}, checked: make(chan outcome),
		own: feed{kind: a.cfg.Kind}, services: feed{kind: a.cfg.Service}, slices: feed{kind: a.cfg.Slices},
	}
	defer l.checks.Wait()
	local := time.NewTicker(localEvery)
	defer local.Stop()
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	for ctx.Err() == nil {
		l.open(ctx)
		l.keepLocal(ctx)
		l.start(ctx)
		if wait, some := l.turns.wait(time.Now()); some {
			due.Reset(wait)
		}
		select {
		case <-ctx.Done():
		case <-local.C:
		case <-due.C:
		case o := <-l.checked:
			l.turns.finish(o.name, time.Now(), o.failed)
		case <-l.own.ready():
			l.own.drain(l.changed)
		case <-l.services.ready():
			l.services.drain(l.serviceChanged)
		case <-l.slices.ready():
			l.slices.drain(l.sliceChanged)
		case <-l.own.ended():
			l.own.close()
		case <-l.services.ended():
			l.services.close()
		case <-l.slices.ended():
			l.slices.close()
		}
	}
	return ctx.Err()
}

// open follows what is to be followed; what cannot be is tried again shortly.
func (l *loop) open(ctx context.Context) {
	if at := l.own.open(ctx, l.a.cfg.Cache); at != nil {
		l.local = nil
		l.adoptAll(at)
	}
	if len(*l.a.remotes.Load()) == 0 {
		l.services.close()
		l.slices.close()
		return
	}
	for _, f := range []*feed{&l.services, &l.slices} {
		if f.kind != nil && f.open(ctx, l.a.cfg.Cache) != nil {
			l.hurry(func(*remote) bool { return true })
		}
	}
}

// keepLocal keeps the local APIServices when the table of kinds changed.
func (l *loop) keepLocal(ctx context.Context) {
	now := l.a.cfg.Kinds.All()
	if l.own.cursor != nil && len(now) > 0 && (len(l.local) != len(now) || &l.local[0] != &now[0]) && l.a.syncLocal(ctx, now) {
		l.local = now
	}
}

// start looks at what is due, each in a goroutine: a server that is slow to
// answer holds up no other.
func (l *loop) start(ctx context.Context) {
	for {
		name, ok := l.turns.take(time.Now())
		if !ok {
			return
		}
		l.checks.Go(func() {
			o := outcome{name, l.a.look(ctx, name)}
			select {
			case l.checked <- o:
			case <-ctx.Done():
			}
		})
	}
}

func (l *loop) hurry(concerned func(*remote) bool) {
	for _, r := range *l.a.remotes.Load() {
		if concerned(r) {
			l.turns.hurry(r.name)
		}
	}
}

// adoptAll makes the table of remotes anew.
func (l *loop) adoptAll(at *cache.Snapshot) {
	gone := maps.Clone(*l.a.remotes.Load())
	for e := range at.All("", "") {
		if s := e.Object.(*apiregistrationv1.APIService); s.Spec.Service != nil {
			l.adopt(s)
			delete(gone, versionOf(s))
		}
	}
	for _, r := range gone {
		l.drop(r)
	}
}

// changed follows a change of an APIService.
func (l *loop) changed(event *cache.Event) {
	s := event.Entry.Object.(*apiregistrationv1.APIService)
	if event.Deleted {
		l.local = nil // a local one comes back
	}
	if event.Deleted || s.Spec.Service == nil {
		if r := (*l.a.remotes.Load())[versionOf(s)]; r != nil {
			l.drop(r)
		}
		return
	}
	l.adopt(s)
}

// adopt sends requests where an APIService says. What changed but in its status
// makes it due.
func (l *loop) adopt(s *apiregistrationv1.APIService) {
	old := (*l.a.remotes.Load())[versionOf(s)]
	if old != nil && old.uid == s.UID && old.spec.String() == s.Spec.String() {
		return
	}
	l.a.replace(versionOf(s), l.a.newRemote(s))
	if old != nil {
		old.close()
	}
	l.turns.hurry(s.Name)
}

func (l *loop) drop(r *remote) {
	l.a.replace(r.gv, nil)
	l.turns.forget(r.name)
	r.close()
}

// replace changes one entry of the table; nil takes it out.
func (a *Aggregator) replace(gv schema.GroupVersion, r *remote) {
	next := maps.Clone(*a.remotes.Load())
	if r == nil {
		delete(next, gv)
	} else {
		next[gv] = r
	}
	a.remotes.Store(&next)
	a.generation.Add(1)
}

func versionOf(s *apiregistrationv1.APIService) schema.GroupVersion {
	return schema.GroupVersion{Group: s.Spec.Group, Version: s.Spec.Version}
}

func (l *loop) serviceChanged(event *cache.Event) {
	s := event.Entry.Object.(*corev1.Service)
	l.hurry(func(r *remote) bool { return r.spec.Service.Namespace == s.Namespace && r.spec.Service.Name == s.Name })
}

func (l *loop) sliceChanged(event *cache.Event) {
	for _, e := range []*cache.Entry{event.Entry, event.Prev} {
		if e == nil {
			continue
		}
		s := e.Object.(*discoveryv1.EndpointSlice)
		name := s.Labels[discoveryv1.LabelServiceName]
		l.hurry(func(r *remote) bool { return r.spec.Service.Namespace == s.Namespace && r.spec.Service.Name == name })
	}
}

// feed follows the changes of a kind.
type feed struct {
	kind   *api.Kind
	cursor *cache.Cursor // nil while it is not followed
}

// open follows the kind from now on and returns its present state; nil when it
// is followed already, or cannot be.
func (f *feed) open(ctx context.Context, c *cache.Cache) *cache.Snapshot {
	if f.cursor != nil {
		return nil
	}
	at, err := c.Snapshot(ctx, f.kind)
	if err != nil {
		return nil
	}
	f.cursor = c.Cursor(at)
	return at
}

func (f *feed) close() { f.cursor = nil }

func (f *feed) ready() <-chan struct{} {
	if f.cursor == nil {
		return nil
	}
	return f.cursor.Ready()
}

func (f *feed) ended() <-chan struct{} {
	if f.cursor == nil {
		return nil
	}
	return f.cursor.Ended()
}

func (f *feed) drain(each func(*cache.Event)) {
	for {
		event, err := f.cursor.TryNext()
		if err != nil {
			f.close()
			return
		}
		if event == nil {
			return
		}
		each(event)
	}
}
