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
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/api"
	"kaji/internal/apiserver/audit"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/object"
	"kaji/internal/apiserver/patch"
	"kaji/internal/apiserver/request"
)

func (v *Verbs) update(w http.ResponseWriter, r *http.Request, in *request.Info) error {
	ctx, cancel := deadline(r)
	defer cancel()
	accept, err := codec.Negotiate(r, in.Kind.Custom)
	if err != nil {
		return err
	}
	opts, err := updateOptions(r)
	if err != nil {
		return err
	}
	obj, err := decode(r, codec.TargetOf(v.Kinds, in.Served), opts.FieldValidation)
	if err != nil {
		return err
	}
	if err := v.readableOne(ctx, in); err != nil {
		return err
	}
	result, created, err := v.UpdateObject(ctx, in, obj, opts)
	if err != nil {
		return err
	}
	return v.respond(w, r, in, okOrCreated(created), accept, result)
}

func updateOptions(r *http.Request) (*metav1.UpdateOptions, error) {
	opts := &metav1.UpdateOptions{}
	if err := options(r, opts); err != nil {
		return nil, err
	}
	if err := invalidOptions("UpdateOptions", validation.ValidateUpdateOptions(opts)); err != nil {
		return nil, err
	}
	opts.TypeMeta = metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "UpdateOptions"}
	return opts, nil
}

func okOrCreated(created bool) int {
	if created {
		return http.StatusCreated
	}
	return http.StatusOK
}

// UpdateObject replaces the object the request names, whole or through a view,
// by obj, of the request's version, which it uses up.
func (v *Verbs) UpdateObject(ctx context.Context, in *request.Info, obj runtime.Object, opts *metav1.UpdateOptions) (api.Object, bool, error) {
	audit.Request(ctx, in, obj)
	o, ok := obj.(api.Object)
	if !ok {
		return nil, false, apierrors.NewInternalError(fmt.Errorf("%T has no metadata", obj))
	}
	hub, err := codec.ToHub(in.Served, o)
	if err != nil {
		return nil, false, hubFault(in, err)
	}
	if err := object.MatchNamespace(hub, in.ObjectNamespace()); err != nil {
		return nil, false, err
	}
	if err := object.MatchName(hub, in.ObjectNamespace(), in.Name); err != nil {
		return nil, false, err
	}
	return v.Objects.Update(ctx, in, v.Objects.Replace(in, hub, opts.FieldManager), opts)
}

// PatchRequest is a patch with its options.
type PatchRequest struct {
	Type    types.PatchType
	Data    []byte
	Options *metav1.PatchOptions
}

// UpdateOptions returns the options as those of an update.
func (p *PatchRequest) UpdateOptions() *metav1.UpdateOptions {
	return &metav1.UpdateOptions{
		TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "UpdateOptions"},
		DryRun:   p.Options.DryRun, FieldManager: p.Options.FieldManager, FieldValidation: p.Options.FieldValidation,
	}
}

// readPatch reads a patch with its options from a request.
func readPatch(r *http.Request, custom bool) (PatchRequest, codec.Accept, error) {
	fail := func(err error) (PatchRequest, codec.Accept, error) { return PatchRequest{}, codec.Accept{}, err }
	kind, err := patch.Negotiate(r, custom)
	if err != nil {
		return fail(err)
	}
	accept, err := codec.Negotiate(r, custom)
	if err != nil {
		return fail(err)
	}
	body, err := readBody(r)
	if err != nil {
		return fail(err)
	}
	opts := &metav1.PatchOptions{}
	if err := options(r, opts); err != nil {
		return fail(err)
	}
	return PatchRequest{Type: kind, Data: body, Options: opts}, accept, nil
}

func (v *Verbs) patch(w http.ResponseWriter, r *http.Request, in *request.Info) error {
	ctx, cancel := deadline(r)
	defer cancel()
	p, accept, err := readPatch(r, in.Kind.Custom)
	if err != nil {
		return err
	}
	result, created, err := v.PatchObject(ctx, in, p)
	if err != nil {
		return err
	}
	return v.respond(w, r, in, okOrCreated(created), accept, result)
}

// PatchObject patches the object the request names, whole or through a view.
func (v *Verbs) PatchObject(ctx context.Context, in *request.Info, p PatchRequest) (api.Object, bool, error) {
	audit.Patch(ctx, p.Data)
	if err := invalidOptions("PatchOptions", validation.ValidatePatchOptions(p.Options, p.Type)); err != nil {
		return nil, false, err
	}
	job := &patch.Patch{Type: p.Type, Data: p.Data, Options: p.Options, UserAgent: in.UserAgent}
	if err := job.Check(); err != nil {
		return nil, false, err
	}
	change, err := job.Change(v.Objects, in)
	if err != nil {
		return nil, false, err
	}
	return v.Objects.Update(ctx, in, change, p.UpdateOptions())
}
