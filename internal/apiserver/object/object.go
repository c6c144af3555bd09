// SPDX-License-Identifier: Apache-2.0

// Package object creates, changes and deletes stored objects: metadata and
// generated names, managedFields, admission, validation, optimistic locking,
// finalizers and graceful deletion, over one transaction of the store.
//
// The verbs call it with hub objects; it knows nothing of HTTP or encodings
// beyond the stored one. A write returns after the cache has it, so that
// whoever writes reads his own write.
package object

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/api"
	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/request"
	"kaji/internal/store"
)

// Sealer turns stored bytes into what is written, and back (encryption at
// rest). The key is bound to the value.
type Sealer interface {
	Seal(ctx context.Context, kind *api.Kind, key string, plain []byte) ([]byte, error)
	Open(ctx context.Context, kind *api.Kind, key string, sealed []byte) (plain []byte, stale bool, err error)
}

// Hook takes part in the writes of one resource, such as the allocation of a
// Service's addresses.
type Hook interface {
	// BeforeWrite may change obj, a private copy, before it is validated, and
	// returns what is to be committed together with it. old is nil on create.
	// It is called again when the transaction's guards failed.
	BeforeWrite(ctx context.Context, obj, old api.Object, dryRun bool) (Side, error)
	// BeforeRemove returns what is to be committed when old is removed.
	BeforeRemove(ctx context.Context, old api.Object) (Side, error)
}

// Side is what a Hook adds to a transaction.
type Side struct {
	Guards []store.Guard
	Ops    []store.Op
	// New are objects to create; the transaction fails when one exists.
	New []Made
}

// Made is an object to create, a hub object that becomes the layer's own.
type Made struct {
	Kind   *api.Kind
	Object api.Object
}

// add puts what the side adds into a transaction.
func (o *Objects) add(ctx context.Context, t store.Txn, side Side) (store.Txn, error) {
	t.Guards = append(t.Guards, side.Guards...)
	t.Ops = append(t.Ops, side.Ops...)
	for _, n := range side.New {
		key := n.Kind.Key(n.Object.GetNamespace(), n.Object.GetName())
		_, sealed, err := o.seal(ctx, n.Kind, key, n.Object)
		if err != nil {
			return t, err
		}
		t.Guards = append(t.Guards, store.Guard{Key: key})
		t.Ops = append(t.Ops, store.Op{Key: key, Value: sealed})
	}
	return t, nil
}

// Config configures Objects.
type Config struct {
	Store     store.Store
	Cache     *cache.Cache
	Kinds     *request.Kinds
	Admission admission.Chain
	// Authorizer judges creation by PUT or apply; nil allows it.
	Authorizer authorizer.Authorizer
	// TypeConverter returns the schema of built-in kinds for managedFields; it
	// is called at first use, and again for every custom kind.
	TypeConverter func(*api.Kind) (managedfields.TypeConverter, error)
	Sealer        Sealer
	Hooks         map[schema.GroupResource]Hook
	Logger        *slog.Logger
}

// Objects is the object layer. All methods are safe for concurrent use.
type Objects struct {
	Config
	managers managers
	plans    plans
}

// New returns the object layer.
func New(cfg Config) *Objects {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	o := &Objects{Config: cfg}
	o.managers.objects = o
	return o
}

// Decode makes the hub object of a stored value; it is the cache's Decode.
func (o *Objects) Decode(kind *api.Kind, kv store.KeyValue) (api.Object, error) {
	return Decode(o.Sealer, kind, kv)
}

// Decode opens and decodes a stored value; sealer may be nil.
func Decode(sealer Sealer, kind *api.Kind, kv store.KeyValue) (api.Object, error) {
	if sealer != nil {
		plain, _, err := sealer.Open(context.Background(), kind, kv.Key, kv.Value)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", kv.Key, err)
		}
		kv.Value = plain
	}
	return codec.DecodeStored(kind, kv)
}

// state is one object as it stands in the store.
type state struct {
	object   api.Object // nil when absent
	revision int64      // zero when absent
	ttl      int64
	cached   bool // read from the cache: the store may know better
}

// present reads an object from the cache.
func (o *Objects) present(ctx context.Context, kind *api.Kind, namespace, name string) (state, error) {
	entry, ok, err := o.Cache.Get(ctx, kind, namespace, name)
	if err != nil {
		return state{}, o.fault(err)
	}
	if !ok {
		return o.fresh(ctx, kind, kind.Key(namespace, name))
	}
	return state{object: entry.Whole(), revision: entry.Revision, cached: true}, nil
}

// fresh reads an object from the store.
func (o *Objects) fresh(ctx context.Context, kind *api.Kind, key string) (state, error) {
	kv, ok, _, err := o.Store.Get(ctx, key)
	if err != nil {
		return state{}, o.fault(err)
	}
	if !ok {
		return state{}, nil
	}
	return o.stateOf(kind, kv)
}

func (o *Objects) stateOf(kind *api.Kind, kv store.KeyValue) (state, error) {
	if kv.ModRevision == 0 {
		return state{}, nil
	}
	obj, err := o.Decode(kind, kv)
	if err != nil {
		return state{}, apierrors.NewInternalError(unreadable(kv, err))
	}
	return state{object: obj, revision: kv.ModRevision, ttl: kv.TTL}, nil
}

// refreshed says whether the store knows a newer state than s, and returns it.
func (o *Objects) refreshed(ctx context.Context, kind *api.Kind, key string, s state) (state, bool) {
	if !s.cached {
		return s, false
	}
	now, err := o.fresh(ctx, kind, key)
	if err != nil || now.revision == s.revision {
		return s, false
	}
	return now, true
}

// Get returns an object no older than the call.
func (o *Objects) Get(ctx context.Context, s *request.Served, namespace, name string, revision string) (*cache.Entry, error) {
	if revision != "0" {
		if _, err := o.Cache.WaitNewest(ctx); err != nil {
			return nil, o.fault(err)
		}
	}
	entry, ok, err := o.Cache.Get(ctx, s.Kind, namespace, name)
	if err != nil {
		return nil, o.fault(err)
	}
	if !ok {
		return nil, apierrors.NewNotFound(s.GVR.GroupResource(), name)
	}
	return entry, nil
}

// fault words an error of the store for a client.
func (o *Objects) fault(err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return err
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return apierrors.NewTimeoutError("request did not complete within the allotted timeout", 0)
	case errors.Is(err, store.ErrClosed):
		return apierrors.NewServiceUnavailable("the store is closed")
	case errors.Is(err, store.ErrTooLarge):
		return err
	}
	o.Logger.Error("store failed", "err", err)
	return apierrors.NewInternalError(err)
}

// commit writes the bytes of obj and waits until the cache has them. On a
// failed guard it returns a transaction result that has not succeeded.
func (o *Objects) commit(ctx context.Context, t store.Txn, side Side) (*store.TxnResult, error) {
	t, err := o.add(ctx, t, side)
	if err != nil {
		return nil, err
	}
	res, err := o.Store.Commit(ctx, t)
	if err != nil {
		return nil, o.fault(err)
	}
	if res.Succeeded {
		if err := o.Cache.WaitFor(ctx, res.Revision); err != nil {
			return nil, o.fault(err)
		}
	}
	return res, nil
}

// seal returns the bytes to store of a hub object, which is changed by it.
func (o *Objects) seal(ctx context.Context, kind *api.Kind, key string, obj api.Object) (plain, sealed []byte, err error) {
	if plain, err = codec.EncodeStored(kind, obj); err != nil {
		return nil, nil, apierrors.NewInternalError(err)
	}
	if o.Sealer == nil {
		return plain, plain, nil
	}
	sealed, err = o.Sealer.Seal(ctx, kind, key, plain)
	if err != nil {
		return nil, nil, apierrors.NewInternalError(err)
	}
	return plain, sealed, nil
}

// asStored returns obj as it would read once stored: an empty list that the
// stored form does not tell from none is none. A dry run answers with it, so
// that it shows what the real write would.
func asStored(kind *api.Kind, obj api.Object) (api.Object, error) {
	value, err := codec.EncodeStored(kind, obj)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	stored, err := codec.DecodeStored(kind, store.KeyValue{Value: value})
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	stored.SetResourceVersion("")
	return stored, nil
}

func isDryRun(options []string) bool { return slices.Contains(options, metav1.DryRunAll) }
