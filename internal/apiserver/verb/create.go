// SPDX-License-Identifier: Apache-2.0

package verb

import (
	"context"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/warning"

	"kaji/internal/api"
	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/audit"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/object"
	"kaji/internal/apiserver/request"
)

// invalidOptions is the answer to options that are not valid.
func invalidOptions(kind string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: kind}, "", errs)
}

// decode reads the body as an object of target, as strictly as asked.
func decode(r *http.Request, target codec.Target, validation string) (runtime.Object, error) {
	format, err := codec.ContentType(r, target.Custom)
	if err != nil {
		return nil, err
	}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	if validation == "" {
		validation = metav1.FieldValidationWarn
	}
	obj, strict, err := codec.Decode(body, format, target, validation != metav1.FieldValidationIgnore)
	if err != nil {
		return nil, err
	}
	if len(strict) > 0 && validation != metav1.FieldValidationIgnore {
		if validation == metav1.FieldValidationStrict {
			return nil, codec.StrictError(target, strict)
		}
		codec.Warn(r.Context(), strict)
	}
	return obj, nil
}

func (v *Verbs) create(w http.ResponseWriter, r *http.Request, in *request.Info) error {
	ctx, cancel := deadline(r)
	defer cancel()
	negotiate := codec.Negotiate
	if v.Virtual[in.Kind.GroupResource()] != nil {
		negotiate = codec.NegotiateNoTable
	}
	accept, err := negotiate(r, in.Kind.Custom)
	if err != nil {
		return err
	}
	opts := &metav1.CreateOptions{}
	if err := options(r, opts); err != nil {
		return err
	}
	if err := invalidOptions("CreateOptions", validation.ValidateCreateOptions(opts)); err != nil {
		return err
	}
	opts.TypeMeta = metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "CreateOptions"}
	obj, err := decode(r, codec.TargetOf(v.Kinds, in.Served), opts.FieldValidation)
	if err != nil {
		return err
	}
	result, err := v.CreateObject(ctx, in, obj, opts)
	if err != nil {
		return err
	}
	if v.Virtual[in.Kind.GroupResource()] != nil {
		accept.As = nil
		writeObject(w, r, http.StatusCreated, accept, result)
		return nil
	}
	return v.respond(w, r, in, http.StatusCreated, accept, result)
}

// CreateObject creates obj, of the request's version, which it uses up. The
// result is a hub object, or what a virtual resource answers.
func (v *Verbs) CreateObject(ctx context.Context, in *request.Info, obj runtime.Object, opts *metav1.CreateOptions) (runtime.Object, error) {
	audit.Request(ctx, in, obj)
	if virtual := v.Virtual[in.Kind.GroupResource()]; virtual != nil {
		return v.createVirtual(ctx, in, obj, opts, virtual)
	}
	o, ok := obj.(api.Object)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("%T has no metadata", obj))
	}
	if in.Kind.Custom {
		// A webhook that converts it is to see where it belongs.
		if err := object.MatchNamespace(o, in.ObjectNamespace()); err != nil {
			return nil, err
		}
	}
	hub, err := codec.ToHub(in.Served, o)
	if err != nil {
		return nil, hubFault(in, err)
	}
	return v.Objects.Create(ctx, in, hub, opts)
}

// hubFault says why an object could not be converted: a custom one's webhook is
// not the client's fault.
func hubFault(in *request.Info, err error) error {
	if in.Kind.Custom {
		return err
	}
	return apierrors.NewBadRequest(err.Error())
}

func (v *Verbs) createVirtual(ctx context.Context, in *request.Info, obj runtime.Object, opts *metav1.CreateOptions, virtual Virtual) (runtime.Object, error) {
	if o, ok := obj.(api.Object); ok {
		hub, err := codec.ToHub(in.Served, o)
		if err != nil {
			return nil, hubFault(in, err)
		}
		if err := object.MatchNamespace(hub, in.ObjectNamespace()); err != nil {
			return nil, err
		}
		tracked, err := v.Objects.Track(in, hub, object.Manager(opts.FieldManager, in.UserAgent))
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		obj = tracked
	}
	attrs := admission.Of(ctx, in, admission.Create, opts, len(opts.DryRun) > 0).With(obj, nil)
	if err := v.Objects.Admission.Mutate(ctx, attrs); err != nil {
		return nil, err
	}
	if o, ok := obj.(api.Object); ok && in.Kind.Rules.Validate != nil {
		if errs := in.Kind.Rules.Validate(o); len(errs) > 0 {
			// Upstream names neither the kind nor the object of a review.
			return nil, apierrors.NewInvalid(schema.GroupKind{Group: in.GVK.Group}, "", errs)
		}
	}
	if err := v.Objects.Admission.Validate(ctx, attrs); err != nil {
		return nil, err
	}
	result, err := virtual(ctx, in, obj)
	if err != nil || result == nil {
		return result, err
	}
	if o, ok := result.(api.Object); ok && !in.Served.Hub {
		return codec.FromHub(in.Served, o)
	}
	result.GetObjectKind().SetGroupVersionKind(in.GVK)
	return result, nil
}

// warnDeprecated warns of a version that goes away.
func warnDeprecated(ctx context.Context, in *request.Info) {
	version := in.Version
	if version.Warning != "" {
		warning.AddWarning(ctx, "", version.Warning)
	}
	if version.Deprecated == 0 {
		return
	}
	text := fmt.Sprintf("%s %s is deprecated in v1.%d+", in.GVK.GroupVersion(), in.GVK.Kind, version.Deprecated)
	if version.Removed > 0 {
		text += fmt.Sprintf(", unavailable in v1.%d+", version.Removed)
	}
	if !version.Replacement.Empty() {
		text += fmt.Sprintf("; use %s %s", version.Replacement.GroupVersion(), version.Replacement.Kind)
	}
	warning.AddWarning(ctx, "", text)
}
