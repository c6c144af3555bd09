// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"net/http"
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
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	auditapi "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"kaji/internal/api"
	"kaji/internal/apiserver/audit"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/crd"
	"kaji/internal/apiserver/list"
	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/verb"
	stream "kaji/internal/apiserver/watch"
	"kaji/internal/client"
	"kaji/internal/client/direct"
)

// Direct is the server without HTTP, for one identity: the same authorization
// and admission. It implements the Server that client/direct takes.
type Direct struct {
	server *Server
	user   user.Info
	agent  string
	// trusted leaves authorization out: the server itself asks.
	trusted bool
	// held hands out what the cache holds of objects instead of all.
	held bool
}

var _ client.Verbs = (*Direct)(nil)

// Direct returns the server for who; agent is recorded in managedFields.
func (s *Server) Direct(who user.Info, agent string) *Direct {
	return &Direct{server: s, user: who, agent: agent}
}

// Held implements client/direct's Server.
func (d *Direct) Held(gvr schema.GroupVersionResource) direct.Server {
	if d.server.slim == nil || !crd.IsSlim(gvr.GroupResource()) {
		return nil
	}
	held := *d
	held.held = true
	return &held
}

// Elsewhere says whether another API server has a version.
func (d *Direct) Elsewhere(gv schema.GroupVersion) bool {
	return d.server.aggregate != nil && d.server.aggregate.Has(gv)
}

// call is one request of a Direct.
type call struct {
	*request.Info
	ctx   context.Context //nolint:containedctx // a call lives as long as its method
	audit *audit.Record
}

// end records how the request was answered: with obj, unless err is set.
func (c *call) end(code int, obj runtime.Object, err error) {
	if c == nil {
		return
	}
	if err == nil && obj != nil {
		audit.Response(c.ctx, func() ([]byte, error) { return codec.Encode(obj, codec.JSON, false) })
	}
	c.audit.Close(code, err)
}

// selecting is begin for a list, a watch or a deletion of many: authorizers are
// told what it selects, and a selector of one name is taken for that name.
func (d *Direct) selecting(ctx context.Context, what string, r client.Resource, opts metav1.ListOptions) (*call, error) {
	name := ""
	if s, err := fields.ParseSelector(opts.FieldSelector); err == nil {
		if only, ok := s.RequiresExactMatch(metav1.ObjectNameField); ok {
			name = only
		}
	}
	return d.beginWith(ctx, what, r, name, opts)
}

// begin makes the request's Info and context, and authorizes it.
func (d *Direct) begin(ctx context.Context, what string, r client.Resource, name string) (*call, error) {
	return d.beginWith(ctx, what, r, name, metav1.ListOptions{})
}

func (d *Direct) beginWith(ctx context.Context, what string, r client.Resource, name string, opts metav1.ListOptions) (*call, error) {
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
	c := &call{Info: in, ctx: ctx}
	if d.server.cfg.Audit != nil {
		query, err := queryOf(&opts)
		if err != nil {
			return nil, err
		}
		if c.ctx, c.audit, err = d.server.cfg.Audit.Open(ctx, query); err != nil {
			return nil, err
		}
	}
	if err := d.check(c); err != nil {
		c.end(0, nil, err)
		return nil, err
	}
	return c, nil
}

// queryOf spells options as a client over HTTP would.
func queryOf(opts *metav1.ListOptions) (url.Values, error) {
	if *opts == (metav1.ListOptions{}) {
		return url.Values{}, nil
	}
	values, err := internalscheme.ParameterCodec.EncodeParameters(opts, metav1.SchemeGroupVersion)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return values, nil
}

// check returns why the request gets no further.
func (d *Direct) check(c *call) error {
	if !d.trusted {
		if err := d.server.permit(c.ctx, c.Info); err != nil {
			return err
		}
	}
	if c.Served == nil {
		return &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: 404, Reason: metav1.StatusReasonNotFound,
			Message: "the server could not find the requested resource",
			Details: &metav1.StatusDetails{Group: c.APIGroup, Kind: c.Resource, Name: c.Name},
		}}
	}
	return nil
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
func (d *Direct) Get(ctx context.Context, r client.Resource, name string, opts metav1.GetOptions) (obj runtime.Object, err error) {
	c, err := d.begin(ctx, "get", r, name)
	if err != nil {
		return nil, err
	}
	defer func() { c.end(http.StatusOK, obj, err) }()
	if c.Subresource == "scale" && c.Scale() != nil {
		scale, err := d.server.verbs.GetScale(c.ctx, c.Info)
		return scale, apiError(err)
	}
	entry, err := d.server.objects.Get(c.ctx, c.Served, c.ObjectNamespace(), name, opts.ResourceVersion)
	if err != nil {
		return nil, apiError(err)
	}
	return out(c.Info, entry.Whole(), nil)
}

func (d *Direct) listOptions(in *request.Info, opts *metav1.ListOptions) (*list.Options, error) {
	values, err := queryOf(opts)
	if err != nil {
		return nil, err
	}
	return list.Parse(in, values)
}

// page reads the page a list asks for.
func (d *Direct) page(c *call, opts metav1.ListOptions) (*list.Page, error) {
	selection, err := d.listOptions(c.Info, &opts)
	if err != nil {
		return nil, err
	}
	page, err := list.Read(c.ctx, d.server.cache, selection)
	return page, apiError(err)
}

// items returns the objects of a page in the request's version.
func (d *Direct) items(in *request.Info, page *list.Page) ([]runtime.Object, error) {
	if err := list.Convert(in.Served, page.Entries); err != nil {
		return nil, apiError(err)
	}
	all := make([]runtime.Object, len(page.Entries))
	for i, e := range page.Entries {
		if d.held {
			all[i] = e.Object
			continue
		}
		obj, err := list.InVersion(in.Served, e)
		if err != nil {
			return nil, apiError(err)
		}
		all[i] = obj
	}
	return all, nil
}

// ListShared lists without a copy: the items are the cache's own objects.
func (d *Direct) ListShared(ctx context.Context, r client.Resource, opts metav1.ListOptions) (l *internalversion.List, err error) {
	c, err := d.selecting(ctx, "list", r, opts)
	if err != nil {
		return nil, err
	}
	defer func() { c.end(http.StatusOK, nil, err) }()
	page, err := d.page(c, opts)
	if err != nil {
		return nil, err
	}
	l = &internalversion.List{}
	setListMeta(l, page)
	l.Items, err = d.items(c.Info, page)
	if err != nil {
		return nil, err
	}
	if audit.At(c.ctx, auditapi.LevelRequestResponse) {
		whole, err := listOf(c.Info, page, l.Items)
		if err == nil {
			audit.Response(c.ctx, func() ([]byte, error) { return codec.Encode(whole, codec.JSON, false) })
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
func (d *Direct) List(ctx context.Context, r client.Resource, opts metav1.ListOptions) (l runtime.Object, err error) {
	c, err := d.selecting(ctx, "list", r, opts)
	if err != nil {
		return nil, err
	}
	defer func() { c.end(http.StatusOK, l, err) }()
	page, err := d.page(c, opts)
	if err != nil {
		return nil, err
	}
	all, err := d.items(c.Info, page)
	if err != nil {
		return nil, err
	}
	l, err = listOf(c.Info, page, all)
	return l, apiError(err)
}

// listOf returns the list of a page's objects in the request's version.
func listOf(in *request.Info, page *list.Page, items []runtime.Object) (runtime.Object, error) {
	var l runtime.Object = &unstructured.UnstructuredList{}
	if !in.Kind.Custom {
		l = in.Version.NewList()
	}
	l.GetObjectKind().SetGroupVersionKind(in.GVK.GroupVersion().WithKind(in.GVK.Kind + "List"))
	if err := meta.SetList(l, items); err != nil {
		return nil, err
	}
	m, err := meta.ListAccessor(l)
	if err != nil {
		return nil, err
	}
	setListMeta(m, page)
	return l, nil
}

// Watch implements client.Verbs. It ends with ctx, too.
func (d *Direct) Watch(ctx context.Context, r client.Resource, opts metav1.ListOptions) (watch.Interface, error) {
	opts.Watch = true
	c, err := d.selecting(ctx, "watch", r, opts)
	if err != nil {
		return nil, err
	}
	selection, err := d.listOptions(c.Info, &opts)
	if err != nil {
		c.end(0, nil, err)
		return nil, err
	}
	ctx, cancel := context.WithCancel(c.ctx)
	s, err := stream.Open(ctx, d.server.cache, selection)
	if err != nil {
		cancel()
		err = apiError(err)
		c.end(0, nil, err)
		return nil, err
	}
	c.audit.Started()
	w := &directWatch{in: c.Info, held: d.held, stream: s, cancel: cancel, events: make(chan watch.Event, 16), bookmarks: selection.Bookmarks}
	go func() {
		w.run(ctx, d.server.stopping.Done())
		c.end(http.StatusOK, nil, nil)
	}()
	return w, nil
}

// Create implements client.Verbs.
func (d *Direct) Create(ctx context.Context, r client.Resource, name string, obj runtime.Object, opts metav1.CreateOptions) (made runtime.Object, err error) {
	c, err := d.begin(ctx, "create", r, name)
	if err != nil {
		return nil, err
	}
	defer func() { c.end(http.StatusCreated, made, err) }()
	opts.TypeMeta = metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "CreateOptions"}
	if c.Subresource != "" {
		result, err := d.server.verbs.CreateSubresource(c.ctx, c.Info, obj.DeepCopyObject(), &opts)
		return result, apiError(err)
	}
	owned, err := own(c.Info, obj)
	if err != nil {
		return nil, err
	}
	result, err := d.server.verbs.CreateObject(c.ctx, c.Info, owned, &opts)
	return out(c.Info, result, err)
}

// Update implements client.Verbs.
func (d *Direct) Update(ctx context.Context, r client.Resource, name string, obj runtime.Object, opts metav1.UpdateOptions) (changed runtime.Object, err error) {
	c, err := d.begin(ctx, "update", r, name)
	if err != nil {
		return nil, err
	}
	defer func() { c.end(http.StatusOK, changed, err) }()
	opts.TypeMeta = metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "UpdateOptions"}
	if scale, ok := obj.(*autoscalingv1.Scale); ok && c.Subresource == "scale" {
		result, err := d.server.verbs.UpdateScale(c.ctx, c.Info, scale, &opts)
		return result, apiError(err)
	}
	owned, err := own(c.Info, obj)
	if err != nil {
		return nil, err
	}
	if err := d.server.verbs.Viewable(c.Info); err != nil {
		return nil, apiError(err)
	}
	result, _, err := d.server.verbs.UpdateObject(c.ctx, c.Info, owned, &opts)
	return out(c.Info, result, err)
}

// Patch implements client.Verbs.
func (d *Direct) Patch(ctx context.Context, r client.Resource, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions) (changed runtime.Object, err error) {
	c, err := d.begin(ctx, "patch", r, name)
	if err != nil {
		return nil, err
	}
	defer func() { c.end(http.StatusOK, changed, err) }()
	opts.TypeMeta = metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PatchOptions"}
	p := verb.PatchRequest{Type: pt, Data: data, Options: &opts}
	if c.Subresource == "scale" && c.Scale() != nil {
		result, err := d.server.verbs.PatchScale(c.ctx, c.Info, p)
		return result, apiError(err)
	}
	if err := d.server.verbs.Viewable(c.Info); err != nil {
		return nil, apiError(err)
	}
	result, _, err := d.server.verbs.PatchObject(c.ctx, c.Info, p)
	return out(c.Info, result, err)
}

// Delete implements client.Verbs.
func (d *Direct) Delete(ctx context.Context, r client.Resource, name string, opts metav1.DeleteOptions) (err error) {
	c, err := d.begin(ctx, "delete", r, name)
	if err != nil {
		return err
	}
	defer func() { c.end(http.StatusOK, nil, err) }()
	return apiError(d.server.verbs.DeleteObject(c.ctx, c.Info, opts.DeepCopy()))
}

// DeleteCollection implements client.Verbs.
func (d *Direct) DeleteCollection(ctx context.Context, r client.Resource, opts metav1.DeleteOptions, selector metav1.ListOptions) (err error) {
	c, err := d.beginWith(ctx, "deletecollection", r, "", selector)
	if err != nil {
		return err
	}
	defer func() { c.end(http.StatusOK, nil, err) }()
	selection, err := d.listOptions(c.Info, &selector)
	if err != nil {
		return err
	}
	_, err = d.server.verbs.DeleteSelected(c.ctx, c.Info, selection, opts.DeepCopy())
	return apiError(err)
}
