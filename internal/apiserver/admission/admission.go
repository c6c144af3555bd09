// SPDX-License-Identifier: Apache-2.0

// Package admission is the seam between the verbs and the plug-ins that change
// or refuse a request after it was authorized and decoded. Plug-ins are its
// children, one each; the app lists them as a literal.
//
// The object layer and the verbs run the chain. Nothing here knows a plug-in.
package admission

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"

	"kaji/internal/api"
	"kaji/internal/apiserver/request"
)

// Operation is what a request does to an object.
type Operation string

// The operations admission is asked about.
const (
	Create  Operation = "CREATE"
	Update  Operation = "UPDATE"
	Delete  Operation = "DELETE"
	Connect Operation = "CONNECT"
)

// Attributes are one request as plug-ins see it.
type Attributes struct {
	Operation Operation
	// Kind and Resource are those of the request, in its own version; for a
	// subresource with a type of its own (Scale, Eviction) Kind names that.
	Kind        schema.GroupVersionKind
	Resource    schema.GroupVersionResource
	Subresource string
	// Namespace is empty for cluster-scoped objects, but for a Namespace
	// itself it is its name. Name is empty while it is to be generated.
	Namespace, Name string
	// Served is the resource's kind, never nil for stored resources.
	Served *request.Served
	// Object is the hub object as it is to be stored; nil for Delete. For
	// Connect and for subresources with a type of their own it is the options
	// or the posted object. Mutate may change it in place, Validate must not.
	Object runtime.Object
	// Old is the stored hub object, nil for Create. It must not be changed.
	Old runtime.Object
	// Options are the meta/v1 options of the verb.
	Options runtime.Object
	DryRun  bool
	User    user.Info
}

// Of returns the attributes of a request without objects.
func Of(ctx context.Context, in *request.Info, op Operation, options runtime.Object, dryRun bool) *Attributes {
	a := &Attributes{
		Operation: op, Resource: in.GVR(), Subresource: in.Subresource,
		Namespace: in.Namespace, Name: in.Name,
		Served: in.Served, Options: options, DryRun: dryRun, User: request.User(ctx),
	}
	if in.Served != nil {
		a.Kind = in.GVK
	}
	return a
}

// With returns a copy with other objects.
func (a *Attributes) With(object, old runtime.Object) *Attributes {
	c := *a
	c.Object, c.Old = object, old
	if o, ok := object.(api.Object); ok && c.Name == "" {
		c.Name = o.GetName()
	}
	return &c
}

// Plugin is one admission plug-in; it implements Mutator, Validator or both.
type Plugin interface {
	// Name is the name it is enabled by, such as "ServiceAccount".
	Name() string
	// Handles says whether it wants to see an operation at all.
	Handles(Operation) bool
}

// Mutator changes requests.
type Mutator interface {
	Plugin
	Mutate(ctx context.Context, a *Attributes) error
}

// Validator refuses requests.
type Validator interface {
	Plugin
	Validate(ctx context.Context, a *Attributes) error
}

// Chain runs plug-ins in order; the first error ends the request.
type Chain []Plugin

// Mutate runs all that change requests.
func (c Chain) Mutate(ctx context.Context, a *Attributes) error {
	return measureStep(ctx, stepAdmit, a, func() error {
		for _, p := range c {
			if m, ok := p.(Mutator); ok && p.Handles(a.Operation) {
				if err := measure(ctx, stepAdmit, a, p.Name(), m.Mutate); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Validate runs all that refuse requests.
func (c Chain) Validate(ctx context.Context, a *Attributes) error {
	return measureStep(ctx, stepValidate, a, func() error {
		for _, p := range c {
			if v, ok := p.(Validator); ok && p.Handles(a.Operation) {
				if err := measure(ctx, stepValidate, a, p.Name(), v.Validate); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Forbidden words a plug-in's refusal as upstream does. What is Forbidden
// already passes unchanged.
func (a *Attributes) Forbidden(err error) error {
	if apierrors.IsForbidden(err) {
		return err
	}
	gr, name := a.describe()
	return apierrors.NewForbidden(gr, name, err)
}

// NotReady is the refusal of a plug-in whose informers are not synced yet.
func (a *Attributes) NotReady() error {
	gr, name := a.describe()
	return a.Forbidden(apierrors.NewForbidden(gr, name, errors.New("not yet ready to handle request")))
}

func (a *Attributes) describe() (schema.GroupResource, string) {
	gr := a.Resource.GroupResource()
	name := a.Name
	if o, ok := a.Object.(api.Object); ok {
		if name == "" {
			name = o.GetName()
		}
		if name == "" && o.GetGenerateName() != "" {
			name = o.GetGenerateName()
		}
	}
	if name == "" {
		name = "Unknown"
	}
	return gr, name
}
