// SPDX-License-Identifier: Apache-2.0

// Package ownerreferences is the admission plug-in
// OwnerReferencesPermissionEnforcement: who changes the owners of an object may
// delete it, as the garbage collector might in his place, and who lets it hold up
// the deletion of its owner may set that owner's finalizers.
//
// The API server's admission chain calls it.
package ownerreferences

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/request"
)

// Name is what the plug-in is enabled by.
const Name = "OwnerReferencesPermissionEnforcement"

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct {
	kinds      *request.Kinds
	authorizer authorizer.Authorizer
}

var _ admission.Validator = (*Plugin)(nil)

// New returns the plug-in; kinds are those served and judge says who may what.
func New(kinds *request.Kinds, judge authorizer.Authorizer) *Plugin {
	return &Plugin{kinds: kinds, authorizer: judge}
}

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Validate implements admission.Validator. The status of pods is left out: it
// cannot change owners, and kubelets may send garbage there.
func (p *Plugin) Validate(ctx context.Context, a *admission.Attributes) error {
	if a.Is("", "pods", "status") {
		return nil
	}
	now, ok := owners(a.Object)
	if !ok {
		return nil
	}
	before, known := owners(a.Old)
	if a.Old != nil && !known || equality.Semantic.DeepEqual(now, before) || len(now)+len(before) == 0 {
		return nil
	}
	// Who makes an object had the power never to make it.
	if a.Operation != admission.Create {
		if reason, err := p.deny(ctx, authorizer.AttributesRecord{
			User: a.User, Verb: "delete", ResourceRequest: true, Namespace: a.Namespace, Name: a.Name,
			APIGroup: a.Resource.Group, APIVersion: a.Resource.Version, Resource: a.Resource.Resource, Subresource: a.Subresource,
		}); reason != nil {
			return a.Forbidden(fmt.Errorf("cannot set an ownerRef on a resource you can't delete: %v, %v", *reason, err))
		}
	}
	return p.judgeBlocking(ctx, a, blocking(now, before))
}

// deny returns the reason that a request is refused for, nil when it is allowed.
func (p *Plugin) deny(ctx context.Context, r authorizer.AttributesRecord) (*string, error) {
	decision, reason, err := p.authorizer.Authorize(ctx, r)
	if decision == authorizer.DecisionAllow {
		return nil, nil
	}
	return &reason, err
}

func (p *Plugin) judgeBlocking(ctx context.Context, a *admission.Attributes, refs []metav1.OwnerReference) error {
	if len(refs) == 0 {
		return nil
	}
	finalize := authorizer.AttributesRecord{
		User: a.User, Verb: "update", ResourceRequest: true, APIGroup: "*", APIVersion: "*", Resource: "*", Subresource: "finalizers", Name: "*",
	}
	if reason, _ := p.deny(ctx, finalize); reason == nil {
		return nil
	}
	for _, ref := range refs {
		owner, err := p.resource(ref)
		if err != nil {
			return a.Forbidden(fmt.Errorf("cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion %s Kind %s: %v", ref.APIVersion, ref.Kind, err))
		}
		finalize.APIGroup, finalize.APIVersion, finalize.Resource = owner.GVR.Group, owner.GVR.Version, owner.GVR.Resource
		finalize.Name, finalize.Namespace = ref.Name, ""
		if owner.Kind.Namespaced {
			finalize.Namespace = a.Namespace // owners live beside what they own
		}
		if reason, err := p.deny(ctx, finalize); reason != nil {
			return a.Forbidden(fmt.Errorf("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: %v, %v", *reason, err))
		}
	}
	return nil
}

// resource returns what serves the owner's kind.
func (p *Plugin) resource(ref metav1.OwnerReference) (*request.Served, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil, err
	}
	if served := p.kinds.Kind(gv.WithKind(ref.Kind)); served != nil {
		return served, nil
	}
	return nil, &meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: gv.Group, Kind: ref.Kind}, SearchedVersions: []string{gv.Version}}
}

func owners(obj runtime.Object) ([]metav1.OwnerReference, bool) {
	if obj == nil {
		return nil, false
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, false
	}
	return m.GetOwnerReferences(), true
}

// blocking returns the references that hold up their owner's deletion and did
// not before.
func blocking(now, before []metav1.OwnerReference) []metav1.OwnerReference {
	holds := func(r metav1.OwnerReference) bool { return r.BlockOwnerDeletion != nil && *r.BlockOwnerDeletion }
	held := map[types.UID]bool{}
	for _, ref := range before {
		held[ref.UID] = holds(ref)
	}
	return slices.DeleteFunc(slices.Clone(now), func(r metav1.OwnerReference) bool { return !holds(r) || held[r.UID] })
}
