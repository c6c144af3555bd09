// SPDX-License-Identifier: Apache-2.0

package verb

import (
	"context"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/list"
	"kaji/internal/apiserver/request"
)

// Computed returns the objects of a resource that are found out when they are
// asked for, such as ComponentStatuses, in order: at least those in the
// request's namespace, and of its name. Its error, if any, is the answer.
type Computed func(ctx context.Context, in *request.Info) ([]api.Object, error)

// computed answers get and list of such a resource.
func (v *Verbs) computed(w http.ResponseWriter, r *http.Request, in *request.Info, objects Computed) error {
	accept, err := codec.Negotiate(r, false)
	if err != nil {
		return err
	}
	switch in.Verb {
	case "get":
		all, err := objects(r.Context(), in)
		if err != nil {
			return err
		}
		for _, obj := range all {
			if obj.GetName() == in.Name && obj.GetNamespace() == in.Namespace {
				return v.respondEntry(w, r, in, http.StatusOK, accept, &cache.Entry{Object: obj})
			}
		}
		return apierrors.NewNotFound(schema.GroupResource{Group: in.Kind.Group, Resource: in.Kind.Singular}, in.Name)
	case "list":
		opts, err := list.Parse(in, r.URL.Query())
		if err != nil {
			return err
		}
		all, err := objects(r.Context(), in)
		if err != nil {
			return err
		}
		page := &list.Page{}
		for _, obj := range all {
			entry := &cache.Entry{Key: in.Kind.Key(obj.GetNamespace(), obj.GetName()), Object: obj}
			if opts.Matches(entry) {
				page.Entries = append(page.Entries, entry)
			}
		}
		return v.respondList(w, r, in, accept, page)
	case "watch":
		return apierrors.NewMethodNotSupported(in.Kind.GroupResource(), in.Verb)
	}
	return ErrMethodNotAllowed()
}
