// SPDX-License-Identifier: Apache-2.0

package object

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"kaji/internal/api"
	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/request"
	"kaji/internal/store"
)

// Delete removes the object a request names, or marks it where finalizers or a
// grace period ask for it. deleted says that it is gone. The result is the
// object or a Status, as the kind answers deletions.
func (o *Objects) Delete(ctx context.Context, in *request.Info, opts *metav1.DeleteOptions) (result runtime.Object, deleted bool, err error) {
	return o.delete(ctx, in, admission.Of(ctx, in, admission.Delete, opts, isDryRun(opts.DryRun)), opts, o.Admission)
}

// DeleteOneOf is Delete for one object of a collection: admission is told of a
// request that names none.
func (o *Objects) DeleteOneOf(ctx context.Context, in *request.Info, opts *metav1.DeleteOptions) error {
	attrs := admission.Of(ctx, in, admission.Delete, opts, isDryRun(opts.DryRun))
	attrs.Name = ""
	_, _, err := o.delete(ctx, in, attrs, opts, o.Admission)
	return err
}

// Remove is Delete without admission, for deletions the server itself makes on
// behalf of another request.
func (o *Objects) Remove(ctx context.Context, in *request.Info, opts *metav1.DeleteOptions) (result runtime.Object, deleted bool, err error) {
	return o.delete(ctx, in, admission.Of(ctx, in, admission.Delete, opts, isDryRun(opts.DryRun)), opts, nil)
}

// settling bounds the removal of an object that is marked to go at once.
const settling = 10 * time.Second

func (o *Objects) delete(ctx context.Context, in *request.Info, attrs *admission.Attributes, opts *metav1.DeleteOptions, chain admission.Chain) (result runtime.Object, deleted bool, err error) {
	kind := in.Kind
	namespace := in.ObjectNamespace()
	key := kind.Key(namespace, in.Name)
	now, err := o.present(ctx, kind, namespace, in.Name)
	if err != nil {
		return nil, false, err
	}
	var done api.Object // as this deletion marked it
	settles := false    // ctx is no longer the client's
	for {
		if err := ctx.Err(); err != nil {
			return nil, false, o.fault(err)
		}
		if done != nil && (now.object == nil || now.object.GetUID() != done.GetUID()) {
			// Somebody who waited for the mark, a node's agent say, was faster.
			return o.answer(in.Served, done), true, nil
		}
		step, err := o.deletion(ctx, in, chain, attrs, opts, now)
		if err != nil {
			if newer, ok := o.refreshed(ctx, kind, key, now); ok {
				now = newer
				continue
			}
			return nil, false, err
		}
		switch {
		case step.obj == nil && !step.remove:
			// Already on its way: nothing to do.
			return o.answer(in.Served, now.object), false, nil
		case step.remove:
			out, next, err := o.remove(ctx, kind, key, step.obj, now, attrs.DryRun)
			if err != nil {
				return nil, false, err
			}
			if next != nil {
				now = *next
				continue
			}
			return o.answer(in.Served, out), true, nil
		}
		if step.then && !settles {
			// An object marked to go at once does not stay, though its client may
			// go while the mark is written: nobody else would remove it.
			settled, cancel := context.WithTimeout(context.WithoutCancel(ctx), settling)
			defer cancel()
			ctx, settles = settled, true
		}
		out, next, err := o.replace(ctx, kind, key, step.obj, now, Side{}, attrs.DryRun)
		if err != nil {
			return nil, false, err
		}
		switch {
		case next != nil:
			now = *next
		case step.then && attrs.DryRun:
			return o.answer(in.Served, out), true, nil
		case step.then:
			if now, err = o.fresh(ctx, kind, key); err != nil {
				return nil, false, err
			}
			chain = nil // it has agreed
			done = step.obj
			opts = marked(opts)
		default:
			return out, false, nil
		}
	}
}

// marked returns the options for an object that the same deletion has marked: its
// version is not the one of the precondition any more.
func marked(opts *metav1.DeleteOptions) *metav1.DeleteOptions {
	if opts.Preconditions == nil || opts.Preconditions.ResourceVersion == nil {
		return opts
	}
	opts = opts.DeepCopy()
	opts.Preconditions.ResourceVersion = nil
	return opts
}

// deletionStep is what is to be done with an object: write obj, or remove it,
// or one and then the other.
type deletionStep struct {
	obj          api.Object
	remove, then bool
}

// deletion decides the next step. The object of now is not modified.
func (o *Objects) deletion(ctx context.Context, in *request.Info, chain admission.Chain, attrs *admission.Attributes, opts *metav1.DeleteOptions, now state) (deletionStep, error) {
	kind := in.Kind
	if now.object == nil {
		return deletionStep{}, apierrors.NewNotFound(in.Served.GVR.GroupResource(), in.Name)
	}
	if err := CheckPreconditions(kind, now.object, opts); err != nil {
		return deletionStep{}, err
	}
	if err := admitDeletion(ctx, chain, attrs, now.object); err != nil {
		return deletionStep{}, err
	}
	obj := api.Own(now.object)
	if kind.Rules.BeforeDelete != nil && obj.GetDeletionTimestamp() == nil {
		obj = now.object.DeepCopyObject().(api.Object) // the kind may change what it likes
		kind.Rules.BeforeDelete(obj)
		if obj.GetDeletionTimestamp() != nil {
			return deletionStep{obj: obj}, nil // marked, the kind's own way
		}
	}
	if g := obj.GetDeletionGracePeriodSeconds(); g != nil && *g < 0 {
		obj.SetDeletionGracePeriodSeconds(ptr.To[int64](1))
	}
	// What a kind settles in the options belongs to this object alone.
	opts = opts.DeepCopy()
	if g := opts.GracePeriodSeconds; g != nil && *g < 0 {
		opts.GracePeriodSeconds = ptr.To[int64](1)
	}
	graceful, pending, err := mark(kind, obj, opts)
	if err != nil {
		return deletionStep{}, err
	}
	if pending {
		return deletionStep{}, nil
	}
	if finalizers, changed := gcFinalizers(kind, obj, opts); changed {
		obj.SetFinalizers(finalizers)
	}
	if len(obj.GetFinalizers()) > 0 || held(kind, obj) {
		if !graceful {
			markNow(kind, obj)
		}
		return deletionStep{obj: obj}, nil
	}
	if graceful {
		// Watchers see the mark even where nothing is to be waited for.
		return deletionStep{obj: obj, then: *opts.GracePeriodSeconds == 0}, nil
	}
	return deletionStep{obj: obj, remove: true}, nil
}

// held says whether something besides metadata.finalizers keeps the object.
func held(kind *api.Kind, obj api.Object) bool {
	return kind.Rules.Held != nil && kind.Rules.Held(obj)
}

func admitDeletion(ctx context.Context, chain admission.Chain, attrs *admission.Attributes, old api.Object) error {
	if len(chain) == 0 {
		return nil
	}
	with := attrs.With(nil, old)
	with.Object = nil
	if err := chain.Mutate(ctx, with); err != nil {
		return err
	}
	return chain.Validate(ctx, with)
}

// CheckPreconditions refuses a deletion of obj that asks for another state of it.
func CheckPreconditions(kind *api.Kind, obj api.Object, opts *metav1.DeleteOptions) error {
	p := opts.Preconditions
	if p == nil {
		return nil
	}
	// Upstream names the kind where the resource belongs.
	gr := schema.GroupResource{Group: kind.Group, Resource: kind.Name}
	if p.UID != nil && *p.UID != obj.GetUID() {
		return apierrors.NewConflict(gr, obj.GetName(), fmt.Errorf(
			"the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, obj.GetUID()))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != obj.GetResourceVersion() {
		return apierrors.NewConflict(gr, obj.GetName(), fmt.Errorf(
			"the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *p.ResourceVersion, obj.GetResourceVersion()))
	}
	return nil
}

// mark gives a gracefully deleted object its deletion time. pending says that
// it is being deleted already and nothing is to be changed.
func mark(kind *api.Kind, obj api.Object, opts *metav1.DeleteOptions) (graceful, pending bool, err error) {
	check := kind.Rules.CheckGracefulDelete
	if check == nil {
		return false, false, nil
	}
	if deleted := obj.GetDeletionTimestamp(); deleted != nil {
		grace := obj.GetDeletionGracePeriodSeconds()
		if grace == nil || *grace == 0 {
			return false, false, nil
		}
		if opts.GracePeriodSeconds == nil || *opts.GracePeriodSeconds >= *grace {
			if opts.GracePeriodSeconds == nil {
				opts.GracePeriodSeconds = grace
			}
			return false, true, nil
		}
		// The period may only become shorter, and not end in the past.
		period := *opts.GracePeriodSeconds
		at := metav1.NewTime(deleted.Add(time.Duration(period-*grace) * time.Second))
		if now := metav1.Now(); at.Before(&now) {
			at = now
			if period != 0 {
				period = 1
			}
		}
		obj.SetDeletionTimestamp(&at)
		obj.SetDeletionGracePeriodSeconds(&period)
		return true, false, nil
	}
	if !check(obj, opts) {
		return false, false, nil
	}
	if opts.GracePeriodSeconds == nil {
		return false, false, apierrors.NewInternalError(errors.New("options.GracePeriodSeconds should not be nil"))
	}
	at := metav1.NewTime(time.Now().Add(time.Duration(*opts.GracePeriodSeconds) * time.Second))
	obj.SetDeletionTimestamp(&at)
	obj.SetDeletionGracePeriodSeconds(opts.GracePeriodSeconds)
	if g := obj.GetGeneration(); g > 0 {
		obj.SetGeneration(g + 1)
	}
	return true, false, nil
}

// markNow marks an object that is held by finalizers only.
func markNow(kind *api.Kind, obj api.Object) {
	// The generation shows the change, as it does for graceful deletion.
	if obj.GetDeletionTimestamp() == nil && obj.GetGeneration() > 0 {
		obj.SetGeneration(obj.GetGeneration() + 1)
	}
	if existing := obj.GetDeletionTimestamp(); existing == nil || existing.After(time.Now()) {
		at := metav1.Now()
		obj.SetDeletionTimestamp(&at)
	}
	if kind.Rules.Held == nil {
		obj.SetDeletionGracePeriodSeconds(ptr.To[int64](0))
	}
}

// gcFinalizers turns the propagation policy into finalizers.
func gcFinalizers(kind *api.Kind, obj api.Object, opts *metav1.DeleteOptions) (finalizers []string, changed bool) {
	if kind.GarbageCollection == api.GCUnsupported {
		return nil, false
	}
	orphan, foreground := propagation(kind, obj, opts)
	old := obj.GetFinalizers()
	for _, f := range old {
		if f != metav1.FinalizerOrphanDependents && f != metav1.FinalizerDeleteDependents {
			finalizers = append(finalizers, f)
		}
	}
	if orphan {
		finalizers = append(finalizers, metav1.FinalizerOrphanDependents)
	}
	if foreground {
		finalizers = append(finalizers, metav1.FinalizerDeleteDependents)
	}
	a, b := slices.Sorted(slices.Values(old)), slices.Sorted(slices.Values(finalizers))
	return finalizers, !slices.Equal(a, b)
}

func propagation(kind *api.Kind, obj api.Object, opts *metav1.DeleteOptions) (orphan, foreground bool) {
	//nolint:staticcheck // old clients still send it
	if opts.OrphanDependents != nil {
		return *opts.OrphanDependents, false
	}
	if opts.PropagationPolicy != nil {
		switch *opts.PropagationPolicy {
		case metav1.DeletePropagationOrphan:
			return true, false
		case metav1.DeletePropagationForeground:
			return false, true
		}
		return false, false
	}
	for _, f := range obj.GetFinalizers() {
		switch f {
		case metav1.FinalizerOrphanDependents:
			return true, false
		case metav1.FinalizerDeleteDependents:
			return false, true
		}
	}
	return kind.GarbageCollection == api.GCOrphan, false
}

// remove deletes the object for good. next is the state that got in between.
func (o *Objects) remove(ctx context.Context, kind *api.Kind, key string, obj api.Object, now state, dryRun bool) (api.Object, *state, error) {
	if dryRun {
		return obj, nil, nil
	}
	var side Side
	if hook := o.Hooks[kind.GroupResource()]; hook != nil {
		var err error
		if side, err = hook.BeforeRemove(ctx, now.object); err != nil {
			return nil, nil, err
		}
	}
	res, err := o.commit(ctx, store.Txn{
		Guards: []store.Guard{{Key: key, ModRevision: now.revision}},
		Ops:    []store.Op{{Key: key, Delete: true}},
	}, side)
	if err != nil {
		return nil, nil, err
	}
	if !res.Succeeded {
		next, err := o.stateOf(kind, res.Current[0])
		return nil, &next, err
	}
	codec.SetRevision(obj, res.Revision)
	return obj, nil, nil
}

// finished says whether an update took the last thing that kept an object
// which is being deleted.
func finished(kind *api.Kind, obj, old api.Object) bool {
	if len(obj.GetFinalizers()) > 0 || held(kind, obj) || old.GetDeletionTimestamp() == nil {
		return false
	}
	grace := old.GetDeletionGracePeriodSeconds()
	return grace == nil || *grace == 0
}

// removeFinished removes an object whose last finalizer an update took away.
// The update is answered with the object as it was wanted.
func (o *Objects) removeFinished(ctx context.Context, kind *api.Kind, key string, obj api.Object, now state, dryRun bool) (api.Object, *state, error) {
	_, next, err := o.remove(ctx, kind, key, api.Own(now.object), now, dryRun)
	if err != nil || next != nil {
		return nil, next, err
	}
	return obj, nil, nil
}

// answer is what a deletion that is done answers.
func (o *Objects) answer(s *request.Served, obj api.Object) runtime.Object {
	if s.Kind.ReturnDeletedObject {
		return obj
	}
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusSuccess,
		Details: &metav1.StatusDetails{
			Name: obj.GetName(), Group: s.GVR.Group, Kind: s.GVR.Resource, UID: obj.GetUID(),
		},
	}
}
