// SPDX-License-Identifier: Apache-2.0

package watch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/apis/example/install"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/storage"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/list"
	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/watch"
	"kaji/internal/store"
)

// adapter shows our store, cache, lists and watches as the interface that
// upstream's suites test. Reads and watches are ours alone; the loop of a
// write, which our verbs have elsewhere, is written out here over store.Commit.
// It reads afresh for every attempt and so never needs a suggestion.
type adapter struct {
	storage.Interface // what is not adapted must not be called: nil

	store store.Store
	cache *cache.Cache
	kind  *api.Kind
	codec runtime.Codec
}

// adapt runs a cache over s until the test ends.
func adapt(t *testing.T, s store.Store, namespaced bool, cfg cache.Config) *adapter {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	a := &adapter{
		store: s, kind: podKind(namespaced),
		codec: serializer.NewCodecFactory(scheme).LegacyCodec(examplev1.SchemeGroupVersion),
	}
	cfg.Store = s
	cfg.Decode = func(_ *api.Kind, kv store.KeyValue) (api.Object, error) {
		pod := &example.Pod{}
		return pod, a.decode(kv.Value, 0, pod)
	}
	a.cache = cache.New(cfg)
	a.cache.Add(a.kind)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = a.cache.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	// A kind is loaded when it is first read: upstream's cache is before that.
	if _, err := a.cache.Snapshot(ctx, a.kind); err != nil {
		t.Fatal(err)
	}
	return a
}

func podKind(namespaced bool) *api.Kind {
	newPod := func() api.Object { return &example.Pod{} }
	newList := func() runtime.Object { return &example.PodList{} }
	gv := examplev1.SchemeGroupVersion
	return &api.Kind{
		Group: gv.Group, Name: "Pod", Resource: "pods", Namespaced: namespaced,
		Versions: []api.Version{{GroupVersion: gv, New: newPod, NewList: newList}},
		Storage:  gv, Prefix: "/registry/pods", New: newPod, NewList: newList,
		IndexedFields: []string{"spec.nodeName"},
		Rules: api.For[*example.Pod]{
			Fields: func(p *example.Pod) fields.Set { return fields.Set{"spec.nodeName": p.Spec.NodeName} },
		}.Rules(),
	}
}

const root = "/registry"

func (a *adapter) Versioner() storage.Versioner { return storage.APIObjectVersioner{} }

func (a *adapter) ReadinessCheck() error { return nil }

// CompactRevision implements storage.Interface.
func (a *adapter) CompactRevision() int64 {
	return a.store.(interface{ Compacted() int64 }).Compacted()
}

// GetCurrentResourceVersion implements storage.Interface.
func (a *adapter) GetCurrentResourceVersion(ctx context.Context) (uint64, error) {
	revision, err := a.store.Revision(ctx)
	return uint64(revision), err
}

// decode makes into what is stored, at a revision unless that is zero.
func (a *adapter) decode(value []byte, revision int64, into runtime.Object) error {
	if _, _, err := a.codec.Decode(value, nil, into); err != nil {
		return err
	}
	if revision != 0 {
		return a.Versioner().UpdateObject(into, uint64(revision))
	}
	return nil
}

// encode returns an object as it is stored.
func (a *adapter) encode(obj runtime.Object) ([]byte, error) {
	obj = obj.DeepCopyObject()
	if err := a.Versioner().PrepareObjectForStorage(obj); err != nil {
		return nil, err
	}
	return runtime.Encode(a.codec, obj)
}

// Create implements storage.Interface.
func (a *adapter) Create(ctx context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	if version, err := a.Versioner().ObjectResourceVersion(obj); err == nil && version != 0 {
		return storage.ErrResourceVersionSetOnCreate
	}
	value, err := a.encode(obj)
	if err != nil {
		return err
	}
	result, err := a.store.Commit(ctx, store.Txn{
		Guards: []store.Guard{{Key: root + key}},
		Ops:    []store.Op{{Key: root + key, Value: value, TTL: int64(ttl)}},
	})
	switch {
	case err != nil:
		return err
	case !result.Succeeded:
		return storage.NewKeyExistsError(key, 0)
	case out == nil:
		return nil
	}
	return a.decode(value, result.Revision, out)
}

// Delete implements storage.Interface.
func (a *adapter) Delete(
	ctx context.Context, key string, out runtime.Object, preconditions *storage.Preconditions,
	validate storage.ValidateObjectFunc, _ runtime.Object, _ storage.DeleteOptions,
) error {
	for {
		kv, found, _, err := a.store.Get(ctx, root+key)
		if err != nil {
			return err
		}
		if !found {
			return storage.NewKeyNotFoundError(key, 0)
		}
		current := &example.Pod{}
		if err := a.decode(kv.Value, kv.ModRevision, current); err != nil {
			return err
		}
		if preconditions != nil {
			if err := preconditions.Check(key, current); err != nil {
				return err
			}
		}
		if err := validate(ctx, current); err != nil {
			return err
		}
		result, err := a.store.Commit(ctx, store.Txn{
			Guards: []store.Guard{{Key: root + key, ModRevision: kv.ModRevision}},
			Ops:    []store.Op{{Key: root + key, Delete: true}},
		})
		if err != nil {
			return err
		}
		if result.Succeeded {
			return a.decode(kv.Value, result.Revision, out)
		}
	}
}

// GuaranteedUpdate implements storage.Interface.
func (a *adapter) GuaranteedUpdate(
	ctx context.Context, key string, out runtime.Object, ignoreNotFound bool,
	preconditions *storage.Preconditions, update storage.UpdateFunc, _ runtime.Object,
) error {
	for {
		kv, found, _, err := a.store.Get(ctx, root+key)
		if err != nil {
			return err
		}
		if !found && !ignoreNotFound {
			return storage.NewKeyNotFoundError(key, 0)
		}
		value, op, err := a.change(key, kv, found, preconditions, update)
		if err != nil {
			return err
		}
		if found && bytes.Equal(value, kv.Value) {
			return a.decode(value, kv.ModRevision, out)
		}
		result, err := a.store.Commit(ctx, store.Txn{
			Guards: []store.Guard{{Key: root + key, ModRevision: kv.ModRevision}}, Ops: []store.Op{op},
		})
		if err != nil {
			return err
		}
		if result.Succeeded {
			return a.decode(value, result.Revision, out)
		}
	}
}

// change asks update what is to become of what is stored.
func (a *adapter) change(
	key string, kv store.KeyValue, found bool, preconditions *storage.Preconditions, update storage.UpdateFunc,
) ([]byte, store.Op, error) {
	current := &example.Pod{}
	if found {
		if err := a.decode(kv.Value, kv.ModRevision, current); err != nil {
			return nil, store.Op{}, err
		}
	}
	if preconditions != nil {
		if err := preconditions.Check(key, current); err != nil {
			return nil, store.Op{}, err
		}
	}
	changed, ttl, err := update(current, storage.ResponseMeta{TTL: kv.TTL, ResourceVersion: uint64(kv.ModRevision)})
	if err != nil {
		return nil, store.Op{}, err
	}
	value, err := a.encode(changed)
	op := store.Op{Key: root + key, Value: value, TTL: kv.TTL}
	if ttl != nil {
		op.TTL = int64(*ttl)
	}
	return value, op, err
}

// Get implements storage.Interface.
func (a *adapter) Get(ctx context.Context, key string, opts storage.GetOptions, out runtime.Object) error {
	o, err := a.options(key, storage.ListOptions{ResourceVersion: opts.ResourceVersion})
	if err != nil {
		return err
	}
	at, err := list.Newest(ctx, a.cache, o)
	if err != nil {
		return err
	}
	target := reflect.ValueOf(out).Elem()
	entry, found := at.Get(root + key)
	switch {
	case found:
		target.Set(reflect.ValueOf(entry.Object.DeepCopyObject()).Elem())
	case opts.IgnoreNotFound:
		target.SetZero()
	default:
		return storage.NewKeyNotFoundError(key, 0)
	}
	return nil
}

// options are those of a list or watch below key.
func (a *adapter) options(key string, opts storage.ListOptions) (*list.Options, error) {
	o := &list.Options{
		ResourceVersion: opts.ResourceVersion, Match: opts.ResourceVersionMatch,
		Limit: opts.Predicate.Limit, Continue: opts.Predicate.Continue,
		Bookmarks: opts.Predicate.AllowWatchBookmarks,
	}
	o.Served = request.ServedOf(a.kind, &a.kind.Versions[0])
	o.Namespace, o.Name, _ = strings.Cut(strings.Trim(strings.TrimPrefix(key, "/pods"), "/"), "/")
	if !a.kind.Namespaced {
		o.Namespace, o.Name = "", o.Namespace
	}
	if s := opts.Predicate.Label; s != nil && !s.Empty() {
		o.Labels = s
	}
	if s := opts.Predicate.Field; s != nil && !s.Empty() {
		o.Fields = s
		if name, ok := s.RequiresExactMatch("metadata.name"); ok {
			o.Name = name
		}
	}
	if o.Name != "" {
		// As the path's name is made a field of the selection.
		named := fields.OneTermEqualSelector("metadata.name", o.Name)
		if o.Fields != nil {
			named = fields.AndSelectors(named, o.Fields)
		}
		o.Fields = named
	}
	switch o.Match {
	case "", metav1.ResourceVersionMatchExact, metav1.ResourceVersionMatchNotOlderThan:
	default:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("unknown ResourceVersionMatch value: %v", o.Match))
	}
	revision, err := a.Versioner().ParseResourceVersion(opts.ResourceVersion)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid resource version: %v", err))
	}
	o.Revision = int64(revision)
	return o, nil
}

// GetList implements storage.Interface.
func (a *adapter) GetList(ctx context.Context, key string, opts storage.ListOptions, out runtime.Object) error {
	o, err := a.options(key, opts)
	if err != nil {
		return err
	}
	page, err := list.Read(ctx, a.cache, o)
	if err != nil {
		return err
	}
	items, err := meta.GetItemsPtr(out)
	if err != nil {
		return err
	}
	pods := make([]example.Pod, 0, len(page.Entries))
	for _, e := range page.Entries {
		pods = append(pods, *e.Object.DeepCopyObject().(*example.Pod))
	}
	reflect.ValueOf(items).Elem().Set(reflect.ValueOf(pods))
	return a.Versioner().UpdateList(out, uint64(page.Revision), page.Continue, page.Remaining)
}

// Watch implements storage.Interface.
func (a *adapter) Watch(ctx context.Context, key string, opts storage.ListOptions) (apiwatch.Interface, error) {
	o, err := a.options(key, opts)
	if err != nil {
		return nil, err
	}
	o.SendInitialEvents = o.Revision == 0
	if opts.SendInitialEvents != nil {
		o.SendInitialEvents = *opts.SendInitialEvents
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{cancel: cancel, events: make(chan apiwatch.Event, 100)}
	stream, err := watch.Open(ctx, a.cache, o)
	if err != nil {
		w.refuse(ctx, err)
		return w, nil
	}
	if deadline, ok := ctx.Deadline(); ok && o.Bookmarks {
		// As the server does: the last bookmark comes shortly before the end.
		w.last = time.After(time.Until(deadline) - 2*time.Second)
	}
	go w.run(ctx, stream)
	return w, nil
}

// watcher delivers a stream's events.
type watcher struct {
	cancel context.CancelFunc
	events chan apiwatch.Event
	last   <-chan time.Time
}

func (w *watcher) Stop() { w.cancel() }

func (w *watcher) ResultChan() <-chan apiwatch.Event { return w.events }

// refuse tells of an error in place of events.
func (w *watcher) refuse(ctx context.Context, err error) {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		known = apierrors.NewInternalError(err)
	}
	if status := known.Status(); ctx.Err() == nil {
		w.events <- apiwatch.Event{Type: apiwatch.Error, Object: &status}
	}
	close(w.events)
	w.cancel()
}

func (w *watcher) run(ctx context.Context, stream *watch.Stream) {
	defer close(w.events)
	defer w.cancel()
	for {
		event, ok, err := stream.TryNext()
		if err != nil || ctx.Err() != nil {
			return
		}
		if !ok {
			select {
			case <-stream.Ready():
				continue
			case <-w.last:
				if event, ok = stream.Bookmark(); !ok {
					continue
				}
			case <-stream.Ended():
				return
			case <-ctx.Done():
				return
			}
		}
		select {
		case w.events <- shown(event):
		case <-ctx.Done():
			return
		}
	}
}

// shown is an event as a client gets it.
func shown(event watch.Event) apiwatch.Event {
	if event.Entry != nil {
		return apiwatch.Event{Type: event.Type, Object: event.Entry.Object.DeepCopyObject()}
	}
	pod := &example.Pod{}
	pod.ResourceVersion = strconv.FormatInt(event.Revision, 10)
	if event.InitialEventsEnd {
		pod.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	}
	return apiwatch.Event{Type: event.Type, Object: pod}
}
