// SPDX-License-Identifier: Apache-2.0

// Package request says what an HTTP request asks for: the verb, the resource
// and version, the names, and who asks. The filters of the API server put it
// into the context, everything behind them reads it there.
//
// It parses paths and looks kinds up; it neither authorizes nor decodes.
package request

import (
	"context"
	"net/http"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// Info is one request. It is read-only once the filters have passed it on, but
// for what is to be done at its end.
type Info struct {
	apirequest.RequestInfo
	// Served is the resource addressed, nil when it is not one of the kinds.
	*Served
	// UserAgent names the client, for managedFields.
	UserAgent string

	outlives bool
	atEnd    []func()
}

var factory = apirequest.RequestInfoFactory{
	APIPrefixes:          sets.NewString("api", "apis"),
	GrouplessAPIPrefixes: sets.NewString("api"),
}

// Parse reads the method and path of r and looks the resource up in kinds.
func Parse(r *http.Request, kinds *Kinds) (*Info, error) {
	parsed, err := factory.NewRequestInfo(r)
	if err != nil {
		return nil, err
	}
	in := &Info{RequestInfo: *parsed, UserAgent: r.UserAgent()}
	if in.IsResourceRequest {
		in.Served = kinds.Resource(in.GVR())
	}
	return in, nil
}

type infoKey struct{}

// With puts in into the context, for this package and for upstream's.
func With(ctx context.Context, in *Info) context.Context {
	ctx = apirequest.WithRequestInfo(ctx, &in.RequestInfo)
	return context.WithValue(ctx, infoKey{}, in)
}

// From returns the request of the context, or nil.
func From(ctx context.Context) *Info {
	in, _ := ctx.Value(infoKey{}).(*Info)
	return in
}

// WithUser puts who asks into the context, for this package and for upstream's.
func WithUser(ctx context.Context, u user.Info) context.Context {
	return apirequest.WithUser(ctx, u)
}

// User returns who asks; it is never nil.
func User(ctx context.Context) user.Info {
	if u, ok := apirequest.UserFrom(ctx); ok {
		return u
	}
	return &user.DefaultInfo{}
}

// Attributes are what an authorizer judges about the request.
func (in *Info) Attributes(u user.Info) authorizer.AttributesRecord {
	a := authorizer.AttributesRecord{
		User:            u,
		Verb:            in.Verb,
		Path:            in.Path,
		ResourceRequest: in.IsResourceRequest,
		APIGroup:        in.APIGroup,
		APIVersion:      in.APIVersion,
		Resource:        in.Resource,
		Subresource:     in.Subresource,
		Namespace:       in.Namespace,
		Name:            in.Name,
	}
	if in.FieldSelector != "" {
		if s, err := fields.ParseSelector(in.FieldSelector); err != nil {
			a.FieldSelectorParsingErr = err
		} else {
			a.FieldSelectorRequirements = s.Requirements()
		}
	}
	if in.LabelSelector != "" {
		if s, err := labels.Parse(in.LabelSelector); err != nil {
			a.LabelSelectorParsingErr = err
		} else if reqs, ok := s.Requirements(); ok {
			a.LabelSelectorRequirements = reqs
		}
	}
	return a
}

// GVR returns the resource as the path names it.
func (in *Info) GVR() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: in.APIGroup, Version: in.APIVersion, Resource: in.Resource}
}

// ObjectNamespace is the namespace objects of the request live in: empty for
// cluster-scoped kinds, namespaces among them.
func (in *Info) ObjectNamespace() string {
	if in.Served != nil && !in.Kind.Namespaced {
		return ""
	}
	return in.Namespace
}

// AtEnd calls f at the end of the request. Stations defer it in place of f: a
// request may go on behind its handler's back, and f is called then.
func (in *Info) AtEnd(f func()) {
	if in.outlives {
		in.atEnd = append(in.atEnd, f)
		return
	}
	f()
}

// Outlive is told by a handler that the request goes on when it returns. The
// function that it returns is called at the end, after that.
func (in *Info) Outlive() (end func()) {
	in.outlives = true
	return func() {
		for _, f := range in.atEnd {
			f()
		}
	}
}

type startedKey struct{}

// WithStarted lets what serves a lasting request tell that it has begun: the
// first events of a watch are out.
func WithStarted(ctx context.Context, started func()) context.Context {
	return context.WithValue(ctx, startedKey{}, started)
}

// Started tells that a lasting request has begun.
func Started(ctx context.Context) {
	if started, ok := ctx.Value(startedKey{}).(func()); ok {
		started()
	}
}
