// SPDX-License-Identifier: Apache-2.0

package object

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	genericvalidation "k8s.io/apimachinery/pkg/api/validation"
	pathvalidation "k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/warning"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/request"
	"kaji/internal/store"
)

// maxGenerated bounds how often another name is tried when a generated one is
// taken.
const maxGenerated = 8

// Create stores obj, a hub object that becomes the layer's own. The result is
// shared and must not be changed.
func (o *Objects) Create(ctx context.Context, in *request.Info, obj api.Object, opts *metav1.CreateOptions) (api.Object, error) {
	wipe(obj)
	if err := MatchNamespace(obj, in.ObjectNamespace()); err != nil {
		return nil, err
	}
	dedupOwners(ctx, obj, duplicateOwners)
	obj, err := o.track(in, Empty(in.Served), obj, Manager(opts.FieldManager, in.UserAgent))
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	dryRun := isDryRun(opts.DryRun)
	attrs := admission.Of(ctx, in, admission.Create, opts, dryRun).With(obj, nil)
	if in.APIGroup == "" && in.Resource == "namespaces" && attrs.Namespace == "" {
		attrs.Namespace = obj.GetName()
	}
	if err := closing(in, attrs.Name); err != nil {
		return nil, err
	}
	before := obj.GetManagedFields()
	if err := o.Admission.Mutate(ctx, attrs); err != nil {
		return nil, err
	}
	keepManagedFields(ctx, obj, before)
	dedupOwners(ctx, obj, duplicateOwnersAfter)

	if obj.GetName() != "" || obj.GetGenerateName() == "" {
		return o.create(ctx, in.Served, obj, in.ObjectNamespace(), attrs)
	}
	for try := 1; ; try++ {
		attempt := obj.DeepCopyObject().(api.Object)
		result, err := o.create(ctx, in.Served, attempt, in.ObjectNamespace(), attrs)
		if err == nil || !apierrors.IsAlreadyExists(err) || try == maxGenerated {
			return result, err
		}
	}
}

// closing refuses new objects of a kind that is about to go.
func closing(in *request.Info, name string) error {
	if in.Kind.Closing == nil || !in.Kind.Closing() {
		return nil
	}
	return apierrors.NewForbidden(in.Kind.GroupResource(), name, errors.New("create not allowed while custom resource definition is terminating"))
}

// create validates and stores one new object.
func (o *Objects) create(ctx context.Context, s *request.Served, obj api.Object, namespace string, attrs *admission.Attributes) (api.Object, error) {
	Fill(obj)
	if obj.GetGenerateName() != "" && obj.GetName() == "" {
		obj.SetName(generateName(obj.GetGenerateName()))
	}
	wanted := obj
	for {
		if o.Hooks[s.Kind.GroupResource()] != nil {
			// What a hook gave away must not be taken for asked when it is
			// called again.
			obj = wanted.DeepCopyObject().(api.Object)
		}
		side, err := o.prepareCreate(ctx, s, obj, namespace, attrs.DryRun)
		if err != nil {
			return nil, err
		}
		if err := o.validateAdmission(ctx, attrs, obj, nil); err != nil {
			return nil, err
		}
		if obj.GetResourceVersion() != "" && obj.GetResourceVersion() != "0" {
			return nil, &apierrors.StatusError{ErrStatus: metav1.Status{
				Status: metav1.StatusFailure, Code: 500,
				Message: "resourceVersion should not be set on objects to be created",
			}}
		}
		result, retry, err := o.insert(ctx, s, obj, side, attrs.DryRun)
		if err != nil || !retry {
			return result, err
		}
	}
}

// prepareCreate runs the kind's rules for a new object.
func (o *Objects) prepareCreate(ctx context.Context, s *request.Served, obj api.Object, namespace string, dryRun bool) (Side, error) {
	kind := s.Kind
	if err := MatchNamespace(obj, namespace); err != nil {
		return Side{}, err
	}
	if prepare := s.Rules().PrepareForCreate; prepare != nil {
		prepare(ctx, obj)
	}
	var side Side
	if hook := o.Hooks[kind.GroupResource()]; hook != nil {
		var err error
		if side, err = hook.BeforeWrite(ctx, obj, nil, dryRun); err != nil {
			return Side{}, err
		}
	}
	if errs := validateNew(s, obj); len(errs) > 0 {
		return Side{}, apierrors.NewInvalid(kind.GroupKind(), obj.GetName(), errs)
	}
	if warn := s.Rules().Warnings; warn != nil {
		for _, w := range warn(obj, nil) {
			warning.AddWarning(ctx, "", w)
		}
	}
	if canonicalize := kind.Rules.Canonicalize; canonicalize != nil {
		canonicalize(obj)
	}
	return side, nil
}

// validateNew judges a new object.
func validateNew(s *request.Served, obj api.Object) field.ErrorList {
	kind, path := s.Kind, field.NewPath("metadata")
	var errs field.ErrorList
	if !kind.OwnMetadata {
		validateName := kind.Rules.ValidateName
		if validateName == nil {
			validateName = pathvalidation.ValidatePathSegmentName
		}
		errs = genericvalidation.ValidateObjectMetaAccessor(obj, kind.Namespaced, validateName, path)
		errs = append(errs, validateFinalizers(kind, obj, path)...)
	}
	switch {
	case s.Version.Validate != nil:
		errs = append(errs, s.Version.Validate(obj, nil)...)
	case s.Rules().Validate != nil:
		errs = append(errs, s.Rules().Validate(obj)...)
	}
	if len(errs) == 0 {
		errs = genericvalidation.ValidateObjectMetaAccessor(obj, kind.Namespaced, pathvalidation.ValidatePathSegmentName, path)
	}
	return once(kind, errs)
}

// validateFinalizers requires finalizers to be Kubernetes' own or to have a
// domain.
func validateFinalizers(kind *api.Kind, obj api.Object, path *field.Path) field.ErrorList {
	if kind.PlainFinalizers || kind.Custom {
		return nil
	}
	var errs field.ErrorList
	for i, name := range obj.GetFinalizers() {
		errs = append(errs, rule.KubeFinalizer(name, path.Child("finalizers").Index(i))...)
	}
	return errs
}

// once drops errors that were found more than once.
func once(kind *api.Kind, errs field.ErrorList) field.ErrorList {
	if kind.RepeatsErrors || kind.Custom || len(errs) < 2 {
		return errs
	}
	return errs.Filter()
}

func (o *Objects) validateAdmission(ctx context.Context, attrs *admission.Attributes, obj, old api.Object) error {
	if len(o.Admission) == 0 {
		return nil
	}
	if old == nil {
		return o.Admission.Validate(ctx, attrs.With(obj, nil))
	}
	return o.Admission.Validate(ctx, attrs.With(obj, old))
}

// insert writes a new object. retry says that only a guard of the side writes
// failed.
func (o *Objects) insert(ctx context.Context, s *request.Served, obj api.Object, side Side, dryRun bool) (result api.Object, retry bool, err error) {
	kind := s.Kind
	key := kind.Key(obj.GetNamespace(), obj.GetName())
	if dryRun {
		_, exists, _, err := o.Store.Get(ctx, key)
		if err != nil {
			return nil, false, o.fault(err)
		}
		if exists {
			return nil, false, o.exists(ctx, s, key, obj)
		}
		result, err = asStored(kind, obj)
		return result, false, err
	}
	_, sealed, err := o.seal(ctx, kind, key, obj)
	if err != nil {
		return nil, false, err
	}
	op := store.Op{Key: key, Value: sealed}
	if kind.Rules.TTL != nil {
		op.TTL = kind.Rules.TTL(obj)
	}
	res, err := o.commit(ctx, store.Txn{
		Guards: []store.Guard{{Key: key}},
		Ops:    []store.Op{op},
	}, side)
	switch {
	case errors.Is(err, store.ErrTooLarge) && len(obj.GetManagedFields()) > 0:
		obj.SetManagedFields(nil)
		return o.insert(ctx, s, obj, side, dryRun)
	case err != nil:
		return nil, false, err
	case res.Succeeded:
		codec.SetRevision(obj, res.Revision)
		return obj, false, nil
	case res.Current[0].ModRevision != 0:
		return nil, false, o.exists(ctx, s, key, obj)
	}
	return nil, true, nil
}

// exists words the error for a name that is taken.
func (o *Objects) exists(ctx context.Context, s *request.Served, key string, obj api.Object) error {
	if obj.GetGenerateName() != "" {
		return apierrors.NewGenerateNameConflict(schema.GroupResource{Group: s.Kind.Group, Resource: s.GVR.Resource}, obj.GetName(), 1)
	}
	err := apierrors.NewAlreadyExists(s.GVR.GroupResource(), obj.GetName())
	if now, getErr := o.fresh(ctx, s.Kind, key); getErr == nil && now.object != nil && now.object.GetDeletionTimestamp() != nil {
		err.ErrStatus.Message = fmt.Sprintf("object is being deleted: %s", err.ErrStatus.Message)
	}
	return err
}
