// SPDX-License-Identifier: Apache-2.0

package verb

import (
	"context"
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
	"kaji/internal/apiserver/audit"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/request"
)

// builtin are the subresources this package serves itself.
func (v *Verbs) builtin() []Subresource {
	all := []Subresource{v.bindings(), v.evictions()}
	if v.Tokens != nil {
		all = append(all, v.tokens())
	}
	return all
}

// special returns the subresource with a type or protocol of its own.
func (v *Verbs) special(in *request.Info) *Subresource {
	return v.subresources[subKey{in.Kind.GroupResource(), in.Subresource}]
}

// view returns the view of the whole object that the request names, or nil.
func view(in *request.Info) *api.Subresource {
	if in.Subresource == "status" {
		return in.Status()
	}
	for i := range in.Kind.Subresources {
		if in.Kind.Subresources[i].Name == in.Subresource {
			return &in.Kind.Subresources[i]
		}
	}
	return nil
}

var viewVerbs = []string{"get", "patch", "update"}

func (v *Verbs) serveSubresource(w http.ResponseWriter, r *http.Request, in *request.Info) {
	err := v.subresource(w, r, in)
	if err != nil {
		fail(w, r, err)
	}
}

func (v *Verbs) subresource(w http.ResponseWriter, r *http.Request, in *request.Info) error {
	if in.Subresource == "scale" && in.Scale() != nil {
		return v.scale(w, r, in)
	}
	if special := v.special(in); special != nil {
		return v.serveSpecial(w, r, in, special)
	}
	sub := view(in)
	if sub == nil && in.Kind.Custom {
		return apierrors.NewNotFound(in.Kind.GroupResource(), in.Name)
	}
	if sub == nil {
		return ErrNotFound()
	}
	verbs := sub.Verbs
	if verbs == nil {
		verbs = viewVerbs
	}
	if !slices.Contains(verbs, in.Verb) {
		return notSupported(in)
	}
	switch in.Verb {
	case "get":
		return v.get(w, r, in)
	case "update":
		return v.update(w, r, in)
	case "patch":
		return v.patch(w, r, in)
	}
	return ErrMethodNotAllowed()
}

func (v *Verbs) serveSpecial(w http.ResponseWriter, r *http.Request, in *request.Info, s *Subresource) error {
	if s.Connect != nil {
		if !slices.Contains(s.Methods, r.Method) {
			return ErrMethodNotAllowed()
		}
		return s.Connect(w, r, in)
	}
	ctx, cancel := deadline(r)
	defer cancel()
	r = r.WithContext(ctx)
	accept, err := codec.NegotiateNoTable(r, false)
	if err != nil {
		return err
	}
	code := http.StatusOK
	var result runtime.Object
	switch {
	case in.Verb == "get" && s.Get != nil:
		result, err = s.Get(ctx, in)
	case in.Verb == "create" && s.Create != nil:
		code = http.StatusCreated
		opts := &metav1.CreateOptions{}
		if err := options(r, opts); err != nil {
			return err
		}
		if err := invalidOptions("CreateOptions", validation.ValidateCreateOptions(opts)); err != nil {
			return err
		}
		opts.TypeMeta = metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "CreateOptions"}
		obj, decodeErr := decode(r, v.targetOf(s), opts.FieldValidation)
		if decodeErr != nil {
			return decodeErr
		}
		audit.Request(ctx, in, obj)
		result, err = s.Create(ctx, in, obj, opts)
	default:
		return ErrMethodNotAllowed()
	}
	if err != nil {
		return err
	}
	if status, ok := result.(*metav1.Status); ok && status.Code == 0 {
		status.Code = int32(code)
	}
	if _, ok := result.(*metav1.Status); !ok && result.GetObjectKind().GroupVersionKind().Empty() {
		result.GetObjectKind().SetGroupVersionKind(s.GVK)
	}
	accept.As = nil
	writeObject(w, r, code, accept, result)
	return nil
}

func (v *Verbs) known(gvk schema.GroupVersionKind) bool { return v.Kinds.Kind(gvk) != nil }

func (v *Verbs) targetOf(s *Subresource) codec.Target {
	t := codec.Target{GVK: s.GVK, New: s.New, Known: v.known}
	if s.Accepts != nil {
		t.Accepts = func(gvk schema.GroupVersionKind) func() runtime.Object {
			if s.Accepts(gvk) {
				return s.New
			}
			return nil
		}
	}
	return t
}

// Viewable returns why the request's subresource is no view of the object, or
// nil, also for the object itself.
func (v *Verbs) Viewable(in *request.Info) error {
	if in.Subresource == "" || view(in) != nil {
		return nil
	}
	return ErrMethodNotAllowed()
}

// CreateSubresource posts obj, which it uses up, to a subresource with a type
// of its own.
func (v *Verbs) CreateSubresource(ctx context.Context, in *request.Info, obj runtime.Object, opts *metav1.CreateOptions) (runtime.Object, error) {
	s := v.special(in)
	if s == nil || s.Create == nil {
		return nil, ErrMethodNotAllowed()
	}
	obj.GetObjectKind().SetGroupVersionKind(s.GVK)
	audit.Request(ctx, in, obj)
	return s.Create(ctx, in, obj, opts)
}
