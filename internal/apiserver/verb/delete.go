// SPDX-License-Identifier: Apache-2.0

package verb

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/warning"

	"kaji/internal/apiserver/audit"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/list"
	"kaji/internal/apiserver/request"
)

// deleteOptions reads the options from the body or, without one, the query.
func deleteOptions(r *http.Request) (*metav1.DeleteOptions, error) {
	opts := &metav1.DeleteOptions{}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	if len(body) > 0 {
		format, err := codec.ContentType(r, false)
		if err != nil {
			return nil, err
		}
		if err := codec.DecodeOptions(body, format, opts); err != nil {
			return nil, err
		}
		audit.Request(r.Context(), request.From(r.Context()), opts)
	} else if err := options(r, opts); err != nil {
		return nil, err
	}
	return opts, checkDeleteOptions(opts)
}

func checkDeleteOptions(opts *metav1.DeleteOptions) error {
	if err := invalidOptions("DeleteOptions", validation.ValidateDeleteOptions(opts)); err != nil {
		return err
	}
	opts.TypeMeta = metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "DeleteOptions"}
	return nil
}

func (v *Verbs) delete(w http.ResponseWriter, r *http.Request, in *request.Info) error {
	ctx, cancel := deadline(r)
	defer cancel()
	accept, err := codec.Negotiate(r, in.Kind.Custom)
	if err != nil {
		return err
	}
	opts, err := deleteOptions(r)
	if err != nil {
		return err
	}
	warnOrphans(ctx, in, opts)
	if err := permanent(in); err != nil {
		return err
	}
	if unsafe := opts.IgnoreStoreReadErrorWithClusterBreakingPotential; unsafe != nil && *unsafe {
		result, err := v.Objects.DeleteUnreadable(ctx, in, opts)
		if err != nil {
			return err
		}
		return v.respond(w, r, in, http.StatusOK, accept, result)
	}
	if err := list.OfOne(v.readableOne(ctx, in)); err != nil {
		return err
	}
	result, deleted, err := v.Objects.Delete(ctx, in, opts)
	if err != nil {
		return err
	}
	code := http.StatusOK
	//nolint:staticcheck // old clients still send it
	if orphan := opts.OrphanDependents; !deleted && orphan != nil && !*orphan {
		code = http.StatusAccepted
	}
	return v.respond(w, r, in, code, accept, result)
}

// readableOne refuses to change or delete an object that cannot be had in the
// version of the request. The server's own components may.
func (v *Verbs) readableOne(ctx context.Context, in *request.Info) error {
	if !codec.Asks(in.Served) {
		return nil
	}
	entry, found, err := v.Cache.Get(ctx, in.Kind, in.ObjectNamespace(), in.Name)
	if err != nil || !found {
		return err
	}
	_, err = list.InVersion(in.Served, entry)
	return err
}

// readable is readableOne for many objects.
func (v *Verbs) readable(ctx context.Context, in *request.Info, selection *list.Options) error {
	if !codec.Asks(in.Served) {
		return nil
	}
	page, err := list.Read(ctx, v.Cache, selection)
	if err != nil {
		return err
	}
	return list.Convert(in.Served, page.Entries)
}

// permanent refuses to delete what the cluster itself needs.
func permanent(in *request.Info) error {
	if why := in.Kind.Rules.Permanent; why != nil {
		if reason := why(in.Name); reason != "" {
			return apierrors.NewForbidden(in.GVR().GroupResource(), in.Name, errors.New(reason))
		}
	}
	return nil
}

// warnOrphans warns of dependents that a deletion leaves behind by default.
func warnOrphans(ctx context.Context, in *request.Info, opts *metav1.DeleteOptions) {
	//nolint:staticcheck // old clients still send OrphanDependents
	if in.Kind.OrphanWarning != "" && opts.PropagationPolicy == nil && opts.OrphanDependents == nil {
		warning.AddWarning(ctx, "", in.Kind.OrphanWarning)
	}
}

// DeleteObject deletes the object the request names.
func (v *Verbs) DeleteObject(ctx context.Context, in *request.Info, opts *metav1.DeleteOptions) error {
	audit.Request(ctx, in, opts)
	if err := checkDeleteOptions(opts); err != nil {
		return err
	}
	if err := permanent(in); err != nil {
		return err
	}
	_, _, err := v.Objects.Delete(ctx, in, opts)
	return err
}

func (v *Verbs) deleteCollection(w http.ResponseWriter, r *http.Request, in *request.Info) error {
	accept, err := codec.Negotiate(r, in.Kind.Custom)
	if err != nil {
		return err
	}
	selection, err := list.Parse(in, r.URL.Query())
	if err != nil {
		return err
	}
	opts, err := deleteOptions(r)
	if err != nil {
		return err
	}
	const unsafe = "ignoreStoreReadErrorWithClusterBreakingPotential"
	if set := opts.IgnoreStoreReadErrorWithClusterBreakingPotential; set != nil && *set {
		return invalidOptions("DeleteOptions", field.ErrorList{field.Invalid(field.NewPath(unsafe), true,
			"is not allowed with DELETECOLLECTION, try again after removing the option")})
	}
	warnOrphans(r.Context(), in, opts)
	if err := v.readable(r.Context(), in, selection); err != nil {
		return err
	}
	page, err := v.DeleteSelected(r.Context(), in, selection, opts)
	if err != nil {
		return err
	}
	return v.respondList(w, r, in, accept, page)
}

// DeleteSelected deletes all objects of a selection and returns the page that
// lists them.
func (v *Verbs) DeleteSelected(ctx context.Context, in *request.Info, selection *list.Options, opts *metav1.DeleteOptions) (*list.Page, error) {
	if err := checkDeleteOptions(opts); err != nil {
		return nil, err
	}
	page, err := list.Read(ctx, v.Cache, selection)
	if err != nil {
		return nil, err
	}
	var group errgroup.Group
	group.SetLimit(abreast(len(page.Entries)))
	var failed atomic.Bool
	for _, entry := range page.Entries {
		if failed.Load() {
			break
		}
		group.Go(func() error {
			err := v.deleteOne(ctx, in, entry.Object.GetNamespace(), entry.Object.GetName(), opts.DeepCopy())
			if err != nil {
				failed.Store(true)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return page, nil
}

// abreast is how many of n objects are deleted at a time: few go one after the
// other, of many some together, which share the writes of the store.
func abreast(n int) int {
	const many, most = 100, 16
	if n < many {
		return 1
	}
	return most
}

// deleteOne deletes an object of a selection, if it is there still.
func (v *Verbs) deleteOne(ctx context.Context, in *request.Info, namespace, name string, opts *metav1.DeleteOptions) error {
	one := *in
	one.Name, one.Namespace = name, namespace
	if in.Kind.Name == "Namespace" && in.Kind.Group == "" {
		one.Namespace = name
	}
	err := v.Objects.DeleteOneOf(ctx, &one, opts)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
