// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"net/url"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	internalscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"kaji/internal/api"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/list"
	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/verb"
	stream "kaji/internal/apiserver/watch"
	"kaji/internal/client"
)

// Direct is the server without HTTP, for one identity: the same authorization
// and admission. It implements the Server that client/direct takes.
type Direct struct {
	server *Server
	user   user.Info
	agent  string
	// trusted leaves authorization out: the server itself asks.
	trusted bool
}

var _ client.Verbs = (*Direct)(nil)

// Direct returns the server for who; agent is recorded in managedFields.
func (s *Server) Direct(who user.Info, agent string) *Direct {
	return &Direct{server: s, user: who, agent: agent}
}

// selecting is begin for a list, a watch or a deletion of many: authorizers are
// told what it selects, and a selector of one name is taken for that name.
func (d *Direct) selecting(ctx context.Context, what string, r client.Resource, opts metav1.ListOptions) (context.Context, *request.Info, error) {
	name := ""
	if s, err := fields.ParseSelector(opts.FieldSelector); err == nil {
		if only, ok := s.RequiresExactMatch(metav1.ObjectNameField); ok {
			name = only
		}
	}
	return d.beginWith(ctx, what, r, name, opts)
}

// begin makes the request's Info and context, and authorizes it.
func (d *Direct) begin(ctx context.Context, what string, r client.Resource, name string) (context.Context, *request.Info, error) {
	return d.beginWith(ctx, what, r, name, metav1.ListOptions{})
}

func (d *Direct) beginWith(ctx context.Context, what string, r client.Resource, name string, opts metav1.ListOptions) (context.Context, *request.Info, error) {
	in := &request.Info{UserAgent: d.agent, RequestInfo: apirequest.RequestInfo{
		IsResourceRequest: true, Verb: what, APIPrefix: "apis",
		APIGroup: r.Group, APIVersion: r.Version, Namespace: r.Namespace,
		Resource: r.Resource, Subresource: r.Subresource, Name: name,
		FieldSelector: opts.FieldSelector, LabelSelector: opts.LabelSelector,
	}}
	if r.Group == "" {
		in.APIPrefix = "api"
		if r.Resource == "namespaces" {
			in.Namespace = name
		}
	}
	in.Served = d.server.kinds.Resource(r.GroupVersionResource)
	ctx = request.WithUser(request.With(ctx, in), d.user)
	if !d.trusted {
		if err := d.server.permit(ctx, in); err != nil {
			return nil, nil, err
		}
	}
	if in.Served == nil {
		return nil, nil, &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: 404, Reason: metav1.StatusReasonNotFound,
			Message: "the server could not find the requested resource",
			Details: &metav1.StatusDetails{Group: r.Group, Kind: r.Resource, Name: name},
		}}
	}
	return ctx, in, nil
}

// out returns a hub object in the version of the request.
func out(in *request.Info, obj runtime.Object, err error) (runtime.Object, error) {
	if err != nil {
		return nil, apiError(err)
	}
	if hub, ok := obj.(api.Object); ok && in.Kind.Prefix != "" {
		return codec.FromHub(in.Served, hub)
	}
	return obj, nil
}

// apiError makes every error one with a Status, as a client over HTTP sees it.
func apiError(err error) error {
	if err == nil {
		return nil
	}
	return &apierrors.StatusError{ErrStatus: *verb.StatusOf(err)}
}

// own returns a copy of a client's object in the version's Go type.
func own(in *request.Info, obj runtime.Object) (runtime.Object, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok && !in.Kind.Custom {
		typed := in.Version.New()
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		obj = typed
	} else {
		obj = obj.DeepCopyObject()
	}
	obj.GetObjectKind().SetGroupVersionKind(in.GVK)
	if _, err := codec.Coerce(in.Version.Coerce, obj); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return obj, nil
}

// Get implements client.Verbs.
func (d *Direct) Get(ctx context.Context, r client.Resource, name string, opts metav1.GetOptions) (runtime.Object, error) {
	ctx, in, err := d.begin(ctx, "get", r, name)
	if err != nil {
		return nil, err
	}
	if in.Subresource == "scale" && in.Kind.Scale != nil {
		scale, err := d.server.verbs.GetScale(ctx, in)
		return scale, apiError(err)
	}
	entry, err := d.server.objects.Get(ctx, in.Kind, in.ObjectNamespace(), name, opts.ResourceVersion)
	if err != nil {
		return nil, apiError(err)
	}
	return out(in, entry.Object, nil)
}

func (d *Direct) listOptions(in *request.Info, opts *metav1.ListOptions) (*list.Options, error) {
	values := url.Values{}
	if *opts != (metav1.ListOptions{}) {
		encoded, err := internalscheme.ParameterCodec.EncodeParameters(opts, metav1.SchemeGroupVersion)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		values = encoded
	}
	return list.Parse(in, values)
}

// page reads the page a list asks for.
func (d *Direct) page(ctx context.Context, r client.Resource, opts metav1.ListOptions) (*request.Info, *list.Page, error) {
	ctx, in, err := d.selecting(ctx, "list", r, opts)
	if err != nil {
		return nil, nil, err
	}
	selection, err := d.listOptions(in, &opts)
	if err != nil {
		return nil, nil, err
	}
	page, err := list.Read(ctx, d.server.cache, selection)
	return in, page, apiError(err)
}

// ListShared lists without a copy: the items are the cache's own objects.
func (d *Direct) ListShared(ctx context.Context, r client.Resource, opts metav1.ListOptions) (*internalversion.List, error) {
	in, page, err := d.page(ctx, r, opts)
	if err != nil {
		return nil, err
	}
	l := &internalversion.List{Items: make([]runtime.Object, len(page.Entries))}
	setListMeta(l, page)
	for i, e := range page.Entries {
		if l.Items[i], err = codec.FromHub(in.Served, e.Object); err != nil {
			return nil, apiError(err)
		}
	}
	return l, nil
}

func setListMeta(l metav1.ListInterface, page *list.Page) {
	l.SetResourceVersion(fmt.Sprint(page.Revision))
	l.SetContinue(page.Continue)
	l.SetRemainingItemCount(page.Remaining)
}

// List implements client.Verbs.
func (d *Direct) List(ctx context.Context, r client.Resource, opts metav1.ListOptions) (runtime.Object, error) {
	in, page, err := d.page(ctx, r, opts)
	if err != nil {
		return nil, err
	}
	items := make([]runtime.Object, len(page.Entries))
	for i, e := range page.Entries {
		if items[i], err = codec.FromHub(in.Served, e.Object); err != nil {
			return nil, apiError(err)
		}
	}
	var l runtime.Object = &unstructured.UnstructuredList{}
	if !in.Kind.Custom {
		l = in.Version.NewList()
	}
	l.GetObjectKind().SetGroupVersionKind(in.GVK.GroupVersion().WithKind(in.GVK.Kind + "List"))
	if err := meta.SetList(l, items); err != nil {
		return nil, apiError(err)
	}
	m, err := meta.ListAccessor(l)
	if err != nil {
		return nil, apiError(err)
	}
	setListMeta(m, page)
	return l, nil
}

// Watch implements client.Verbs. It ends with ctx, too.
func (d *Direct) Watch(ctx context.Context, r client.Resource, opts metav1.ListOptions) (watch.Interface, error) {
	opts.Watch = true
	ctx, in, err := d.selecting(ctx, "watch", r, opts)
	if err != nil {
		return nil, err
	}
	selection, err := d.listOptions(in, &opts)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s, err := stream.Open(ctx, d.server.cache, selection)
	if err != nil {
		cancel()
		return nil, apiError(err)
	}
	w := &directWatch{in: in, stream: s, cancel: cancel, events: make(chan watch.Event, 16), bookmarks: selection.Bookmarks}
	go w.run(ctx, d.server.stopping)
	return w, nil
}

// Create implements client.Verbs.
func (d *Direct) Create(ctx context.Context, r client.Resource, name string, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error) {
	ctx, in, err := d.begin(ctx, "create", r, name)
	if err != nil {
		return nil, err
	}
	opts.TypeMeta = metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "CreateOptions"}
	if in.Subresource != "" {
		result, err := d.server.verbs.CreateSubresource(ctx, in, obj.DeepCopyObject(), &opts)
		return result, apiError(err)
	}
	owned, err := own(in, obj)
	if err != nil {
		return nil, err
	}
	result, err := d.server.verbs.CreateObject(ctx, in, owned, &opts)
	return out(in, result, err)
}

// Update implements client.Verbs.
func (d *Direct) Update(ctx context.Context, r client.Resource, name string, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	ctx, in, err := d.begin(ctx, "update", r, name)
	if err != nil {
		return nil, err
	}
	opts.TypeMeta = metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "UpdateOptions"}
	if scale, ok := obj.(*autoscalingv1.Scale); ok && in.Subresource == "scale" {
		result, err := d.server.verbs.UpdateScale(ctx, in, scale, &opts)
		return result, apiError(err)
	}
	owned, err := own(in, obj)
	if err != nil {
		return nil, err
	}
	if err := d.server.verbs.Viewable(in); err != nil {
		return nil, apiError(err)
	}
	result, _, err := d.server.verbs.UpdateObject(ctx, in, owned, &opts)
	return out(in, result, err)
}

// Patch implements client.Verbs.
func (d *Direct) Patch(ctx context.Context, r client.Resource, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error) {
	ctx, in, err := d.begin(ctx, "patch", r, name)
	if err != nil {
		return nil, err
	}
	opts.TypeMeta = metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PatchOptions"}
	p := verb.PatchRequest{Type: pt, Data: data, Options: &opts}
	if in.Subresource == "scale" && in.Kind.Scale != nil {
		result, err := d.server.verbs.PatchScale(ctx, in, p)
		return result, apiError(err)
	}
	if err := d.server.verbs.Viewable(in); err != nil {
		return nil, apiError(err)
	}
	result, _, err := d.server.verbs.PatchObject(ctx, in, p)
	return out(in, result, err)
}

// Delete implements client.Verbs.
func (d *Direct) Delete(ctx context.Context, r client.Resource, name string, opts metav1.DeleteOptions) error {
	ctx, in, err := d.begin(ctx, "delete", r, name)
	if err != nil {
		return err
	}
	return apiError(d.server.verbs.DeleteObject(ctx, in, opts.DeepCopy()))
}

// DeleteCollection implements client.Verbs.
func (d *Direct) DeleteCollection(ctx context.Context, r client.Resource, opts metav1.DeleteOptions, selector metav1.ListOptions) error {
	ctx, in, err := d.begin(ctx, "deletecollection", r, "")
	if err != nil {
		return err
	}
	selection, err := d.listOptions(in, &selector)
	if err != nil {
		return err
	}
	_, err = d.server.verbs.DeleteSelected(ctx, in, selection, opts.DeepCopy())
	return apiError(err)
}
