// SPDX-License-Identifier: Apache-2.0

package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	genericvalidation "k8s.io/apimachinery/pkg/api/validation"
	pathvalidation "k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/warning"

	"kaji/internal/api"
	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/request"
	"kaji/internal/store"
)

const optimisticLock = "the object has been modified; please apply your changes to the latest version and try again"

// Change says how an object is to be changed.
type Change struct {
	// Apply returns the wanted hub object, its own copy, given the present one;
	// old has no UID when there is none yet. It may be called several times.
	// It keeps managedFields itself.
	Apply func(ctx context.Context, old api.Object) (api.Object, error)
	// UID and ResourceVersion, when set, must be the present object's.
	UID             types.UID
	ResourceVersion string
	// AllowCreate lets an absent object be created (apply).
	AllowCreate bool
	// Unadmitted leaves the admission chain out, for writes the server itself
	// makes on behalf of another request (binding, eviction).
	Unadmitted bool
	// View overrides the rules of the subresource that the request names.
	View *api.Subresource
	// Facade, when set, is what admission sees instead of the whole objects.
	Facade *Facade
}

// Facade is a part of an object that has a type of its own.
type Facade struct {
	Kind schema.GroupVersionKind
	// Show returns the part of an object.
	Show func(api.Object) (api.Object, error)
	// Take writes what admission made of the part back into the object.
	Take func(part, obj api.Object) error
}

// Replace is the Change of a PUT: obj is a hub object, and stays the caller's.
func (o *Objects) Replace(in *request.Info, obj api.Object, manager string) Change {
	return Change{
		UID: obj.GetUID(),
		Apply: func(_ context.Context, old api.Object) (api.Object, error) {
			wanted, err := o.track(in, old, obj.DeepCopyObject().(api.Object), Manager(manager, in.UserAgent))
			if err != nil {
				return nil, apierrors.NewInternalError(err)
			}
			return wanted, nil
		},
	}
}

// Update changes the object a request names, as often as needed until nobody
// else got in between. created says that it did not exist before.
func (o *Objects) Update(ctx context.Context, in *request.Info, change Change, opts *metav1.UpdateOptions) (result api.Object, created bool, err error) {
	kind := in.Kind
	namespace := in.ObjectNamespace()
	key := kind.Key(namespace, in.Name)
	now, err := o.present(ctx, kind, namespace, in.Name)
	if err != nil {
		return nil, false, err
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, false, o.fault(err)
		}
		result, next, err := o.attempt(ctx, in, change, opts, key, now)
		if err != nil {
			// What was read from the cache may have been too old to judge.
			if newer, ok := o.refreshed(ctx, kind, key, now); ok {
				now = newer
				continue
			}
			return nil, false, err
		}
		if next == nil {
			return result, now.object == nil, nil
		}
		now = *next
	}
}

// attempt tries the change on one state. A non-nil next is the state that got
// in between.
func (o *Objects) attempt(ctx context.Context, in *request.Info, change Change, opts *metav1.UpdateOptions, key string, now state) (result api.Object, next *state, err error) {
	kind := in.Kind
	view := change.View
	if view == nil && in.Subresource != "" {
		view = subresourceOf(in.Served, in.Subresource)
	}
	allowCreate := view == nil && (change.AllowCreate || kind.AllowCreateOnUpdate)
	if now.object == nil && !allowCreate {
		return nil, nil, apierrors.NewNotFound(in.Served.GVR.GroupResource(), in.Name)
	}
	if err := checkPreconditions(in, key, change, now.object); err != nil {
		return nil, nil, err
	}
	old := now.object
	if old == nil {
		old = Empty(in.Served)
	}
	obj, err := change.Apply(ctx, old)
	if err != nil {
		return nil, nil, err
	}
	dryRun := isDryRun(opts.DryRun)
	attrs := admission.Of(ctx, in, admission.Update, opts, dryRun)
	if now.object == nil {
		attrs = admission.Of(ctx, in, admission.Create, createOptions(opts), dryRun)
		if err := closing(in, in.Name); err != nil {
			return nil, nil, err
		}
	}
	if !change.Unadmitted {
		if err := o.mutateUpdate(ctx, attrs, change.Facade, obj, now.object); err != nil {
			return nil, nil, err
		}
	}
	if now.object == nil {
		return o.createByUpdate(ctx, in, obj, attrs)
	}
	if err := matchRevision(kind, in, obj, now); err != nil {
		return nil, nil, err
	}
	side, err := o.prepareUpdate(ctx, in, view, obj, now.object, dryRun)
	if err != nil {
		return nil, nil, err
	}
	keepTimestamps(obj, now.object)
	if !change.Unadmitted {
		if err := o.validateUpdate(ctx, attrs, change.Facade, obj, now.object); err != nil {
			return nil, nil, err
		}
	}
	if finished(kind, obj, now.object) {
		return o.removeFinished(ctx, kind, key, obj, now, dryRun)
	}
	return o.replace(ctx, kind, key, obj, now, side, dryRun)
}

func checkPreconditions(in *request.Info, key string, change Change, now api.Object) error {
	fail := func(what, want, have string) error {
		return apierrors.NewConflict(in.Served.GVR.GroupResource(), in.Name, fmt.Errorf(
			"StorageError: invalid object, Code: 4, Key: %s, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: %s in precondition: %v, %s in object meta: %v",
			key, what, want, what, have))
	}
	var uid types.UID
	var rv string
	if now != nil {
		uid, rv = now.GetUID(), now.GetResourceVersion()
	}
	if change.UID != "" && change.UID != uid {
		return fail("UID", string(change.UID), string(uid))
	}
	if change.ResourceVersion != "" && change.ResourceVersion != rv {
		return fail("ResourceVersion", change.ResourceVersion, rv)
	}
	return nil
}

func (o *Objects) mutateAdmission(ctx context.Context, attrs *admission.Attributes, obj, old api.Object) error {
	if len(o.Admission) > 0 {
		before := obj.GetManagedFields()
		with := attrs.With(obj, nil)
		if old != nil {
			with = attrs.With(obj, old)
		}
		if err := o.Admission.Mutate(ctx, with); err != nil {
			return err
		}
		keepManagedFields(ctx, obj, before)
	}
	dedupOwners(ctx, obj, duplicateOwnersAfter)
	return nil
}

// mutateUpdate is mutateAdmission of the facade, if there is one.
func (o *Objects) mutateUpdate(ctx context.Context, attrs *admission.Attributes, facade *Facade, obj, old api.Object) error {
	if facade == nil || len(o.Admission) == 0 {
		return o.mutateAdmission(ctx, attrs, obj, old)
	}
	part, before, err := facade.both(obj, old)
	if err != nil {
		return err
	}
	with := attrs.With(part, before)
	with.Kind = facade.Kind
	if err := o.Admission.Mutate(ctx, with); err != nil {
		return err
	}
	return facade.Take(part, obj)
}

// validateUpdate is validateAdmission of the facade, if there is one.
func (o *Objects) validateUpdate(ctx context.Context, attrs *admission.Attributes, facade *Facade, obj, old api.Object) error {
	if facade == nil || len(o.Admission) == 0 {
		return o.validateAdmission(ctx, attrs, obj, old)
	}
	part, before, err := facade.both(obj, old)
	if err != nil {
		return err
	}
	with := attrs.With(part, before)
	with.Kind = facade.Kind
	return o.Admission.Validate(ctx, with)
}

func (f *Facade) both(obj, old api.Object) (part, before api.Object, err error) {
	if part, err = f.Show(obj); err != nil {
		return nil, nil, err
	}
	before, err = f.Show(old)
	return part, before, err
}

// createByUpdate creates what a PUT or an apply names and is not there.
func (o *Objects) createByUpdate(ctx context.Context, in *request.Info, obj api.Object, attrs *admission.Attributes) (api.Object, *state, error) {
	if err := o.mayCreate(ctx, in); err != nil {
		return nil, nil, err
	}
	wipe(obj)
	obj.SetResourceVersion("")
	result, err := o.create(ctx, in.Served, obj, in.ObjectNamespace(), attrs)
	if apierrors.IsAlreadyExists(err) {
		now, freshErr := o.fresh(ctx, in.Kind, in.Kind.Key(in.ObjectNamespace(), in.Name))
		if freshErr == nil && now.object != nil {
			return nil, &now, nil
		}
	}
	return result, nil, err
}

// mayCreate asks whether the user may create what he updates.
func (o *Objects) mayCreate(ctx context.Context, in *request.Info) error {
	if o.Authorizer == nil {
		return nil
	}
	attrs := in.Attributes(request.User(ctx))
	attrs.Verb = "create"
	decision, reason, err := o.Authorizer.Authorize(ctx, attrs)
	switch {
	case decision == authorizer.DecisionAllow:
		return nil
	case err != nil:
		return apierrors.NewInternalError(err)
	}
	return Forbidden(attrs, reason)
}

var notHTML = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// Forbidden words a refusal of the authorizer.
func Forbidden(a authorizer.Attributes, reason string) error {
	user := a.GetUser().GetName()
	var message string
	switch {
	case !a.IsResourceRequest():
		message = fmt.Sprintf("User %q cannot %s path %q", user, a.GetVerb(), a.GetPath())
	default:
		resource := a.GetResource()
		if sub := a.GetSubresource(); sub != "" {
			resource += "/" + sub
		}
		message = fmt.Sprintf("User %q cannot %s resource %q in API group %q", user, a.GetVerb(), resource, a.GetAPIGroup())
		if ns := a.GetNamespace(); ns != "" {
			message += fmt.Sprintf(" in the namespace %q", ns)
		} else {
			message += " at the cluster scope"
		}
	}
	// What clients send must not look like HTML in the answer.
	message = notHTML.Replace(message)
	if reason != "" {
		message += ": " + reason
	}
	if !a.IsResourceRequest() {
		return apierrors.NewForbidden(schema.GroupResource{}, "", errors.New(message))
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: a.GetAPIGroup(), Resource: a.GetResource()}, a.GetName(), errors.New(message))
}

// matchRevision is the optimistic lock: the object must be based on the
// present one, or on none where the kind allows it.
func matchRevision(kind *api.Kind, in *request.Info, obj api.Object, now state) error {
	rv := obj.GetResourceVersion()
	if rv == "" || rv == "0" {
		if kind.AllowUnconditionalUpdate {
			codec.SetRevision(obj, now.revision)
			return nil
		}
		return apierrors.NewInvalid(schema.GroupKind{Group: kind.Group, Kind: kind.Resource}, in.Name, field.ErrorList{
			field.Invalid(field.NewPath("metadata").Child("resourceVersion"), uint64(0), "must be specified for an update"),
		})
	}
	based, err := strconv.ParseUint(rv, 10, 64)
	if err != nil {
		return err
	}
	if based != uint64(now.revision) {
		return apierrors.NewConflict(in.Served.GVR.GroupResource(), in.Name, errors.New(optimisticLock))
	}
	return nil
}

// prepareUpdate runs the rules of the kind, or of the view, for a change.
func (o *Objects) prepareUpdate(ctx context.Context, in *request.Info, view *api.Subresource, obj, old api.Object, dryRun bool) (Side, error) {
	kind := in.Kind
	if err := MatchNamespace(obj, in.ObjectNamespace()); err != nil {
		return Side{}, err
	}
	obj.SetGeneration(old.GetGeneration())
	rules := in.Rules()
	prepare, validate, warn := rules.PrepareForUpdate, rules.ValidateUpdate, rules.Warnings
	if in.Version.Validate != nil {
		validate = in.Version.Validate
	}
	if view != nil {
		prepare, validate, warn = view.PrepareForUpdate, view.ValidateUpdate, view.Warnings
	}
	if prepare != nil {
		prepare(ctx, obj, old)
	}
	if obj.GetUID() == "" {
		obj.SetUID(old.GetUID())
	}
	if created := old.GetCreationTimestamp(); !created.IsZero() {
		obj.SetCreationTimestamp(created)
	}
	if deleted := old.GetDeletionTimestamp(); !deleted.IsZero() {
		obj.SetDeletionTimestamp(deleted)
	}
	if grace := old.GetDeletionGracePeriodSeconds(); grace != nil && obj.GetDeletionGracePeriodSeconds() == nil {
		obj.SetDeletionGracePeriodSeconds(grace)
	}
	var side Side
	var refused error
	if hook := o.Hooks[kind.GroupResource()]; hook != nil && view == nil {
		side, refused = hook.BeforeWrite(ctx, obj, old, dryRun)
	}
	path := field.NewPath("metadata")
	errs := genericvalidation.ValidateObjectMetaAccessor(obj, kind.Namespaced, pathvalidation.ValidatePathSegmentName, path)
	errs = append(errs, genericvalidation.ValidateObjectMetaAccessorUpdate(obj, old, path)...)
	errs = append(errs, validateFinalizers(kind, obj, path)...)
	if validate != nil {
		errs = append(errs, validate(obj, old)...)
	}
	errs = warnTolerated(ctx, errs)
	if errs = once(kind, errs); len(errs) > 0 {
		return Side{}, apierrors.NewInvalid(kind.GroupKind(), obj.GetName(), errs)
	}
	if refused != nil {
		// What may not change at all says more than that it cannot be had.
		return Side{}, refused
	}
	if warn != nil {
		for _, w := range warn(obj, old) {
			warning.AddWarning(ctx, "", w)
		}
	}
	if kind.Rules.Canonicalize != nil {
		kind.Rules.Canonicalize(obj)
	}
	return side, nil
}

// replace writes the changed object, unless nothing changed.
func (o *Objects) replace(ctx context.Context, kind *api.Kind, key string, obj api.Object, now state, side Side, dryRun bool) (api.Object, *state, error) {
	plain, sealed, err := o.seal(ctx, kind, key, obj)
	if err != nil {
		return nil, nil, err
	}
	same, err := codec.SameStored(kind, now.object, plain)
	if err != nil {
		return nil, nil, apierrors.NewInternalError(err)
	}
	if same && !o.stale(ctx, kind, key, plain) {
		if newer, ok := o.refreshed(ctx, kind, key, now); ok {
			return nil, &newer, nil
		}
		return now.object, nil, nil
	}
	if dryRun {
		if obj, err = asStored(kind, obj); err != nil {
			return nil, nil, err
		}
		codec.SetRevision(obj, now.revision)
		return obj, nil, nil
	}
	op := store.Op{Key: key, Value: sealed, TTL: now.ttl}
	if kind.Rules.TTL != nil {
		op.TTL = kind.Rules.TTL(obj)
	}
	res, err := o.commit(ctx, store.Txn{
		Guards: []store.Guard{{Key: key, ModRevision: now.revision}},
		Ops:    []store.Op{op},
	}, side)
	switch {
	case errors.Is(err, store.ErrTooLarge) && len(obj.GetManagedFields()) > 0:
		obj.SetManagedFields(nil)
		return o.replace(ctx, kind, key, obj, now, side, dryRun)
	case err != nil:
		return nil, nil, err
	case res.Succeeded:
		codec.SetRevision(obj, res.Revision)
		return obj, nil, nil
	}
	next, err := o.stateOf(kind, res.Current[0])
	return nil, &next, err
}

// stale says whether the stored value is to be written anew although nothing
// changed, since it is encrypted by a key that is no longer the first, or
// encoded in a version that is no longer the one to store.
func (o *Objects) stale(ctx context.Context, kind *api.Kind, key string, plain []byte) bool {
	versions := len(kind.Versions) > 1
	if o.Sealer == nil && !versions {
		return false
	}
	kv, ok, _, err := o.Store.Get(ctx, key)
	if err != nil || !ok {
		return false
	}
	stored := kv.Value
	if o.Sealer != nil {
		opened, stale, err := o.Sealer.Open(ctx, kind, key, kv.Value)
		if err != nil || stale {
			return err == nil
		}
		stored = opened
	}
	return versions && !bytes.Equal(stored, plain)
}

func createOptions(o *metav1.UpdateOptions) *metav1.CreateOptions {
	return &metav1.CreateOptions{
		TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "CreateOptions"},
		DryRun:   o.DryRun, FieldManager: o.FieldManager, FieldValidation: o.FieldValidation,
	}
}

// warnTolerated turns what a validation let pass into warnings.
func warnTolerated(ctx context.Context, errs field.ErrorList) field.ErrorList {
	return slices.DeleteFunc(errs, func(err *field.Error) bool {
		if err.Type != api.Tolerated {
			return false
		}
		warning.AddWarning(ctx, "", err.Detail)
		return true
	})
}
