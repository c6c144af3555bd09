// SPDX-License-Identifier: Apache-2.0

// Package served tells which resources an API server serves, built in and
// custom, for controllers that act on all of them: garbage collection and the
// deletion of namespaces. It keeps nothing.
package served

import (
	"context"
	"errors"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"kaji/internal/client"
)

// Resource is a served resource, in the version its server prefers.
type Resource struct {
	schema.GroupVersionResource
	Kind       string
	Namespaced bool
	Verbs      []string
}

// GroupKind returns the kind of the resource's objects.
func (r Resource) GroupKind() schema.GroupKind {
	return schema.GroupKind{Group: r.Group, Kind: r.Kind}
}

// Can says whether the resource has all the verbs.
func (r Resource) Can(verbs ...string) bool {
	return !slices.ContainsFunc(verbs, func(v string) bool { return !slices.Contains(r.Verbs, v) })
}

// Lister asks what is served. When only some groups answer, it returns what
// those have together with a *discovery.ErrGroupDiscoveryFailed.
type Lister func(ctx context.Context) ([]Resource, error)

// By returns the Lister that asks an API server's discovery.
func By(api client.Interface) Lister {
	return func(ctx context.Context) ([]Resource, error) {
		config := api.RESTConfig()
		if config == nil {
			return nil, errors.New("no way to ask what the API server serves")
		}
		d, err := discovery.NewDiscoveryClientForConfig(config)
		if err != nil {
			return nil, err
		}
		lists, failed := d.ServerPreferredResourcesWithContext(ctx)
		if lists == nil && failed != nil {
			return nil, failed
		}
		var out []Resource
		for _, list := range lists {
			gv, err := schema.ParseGroupVersion(list.GroupVersion)
			if err != nil {
				return nil, err
			}
			for _, r := range list.APIResources {
				out = append(out, Resource{GroupVersionResource: gv.WithResource(r.Name), Kind: r.Kind, Namespaced: r.Namespaced, Verbs: r.Verbs})
			}
		}
		return out, failed
	}
}

// Has says whether an API server serves a sub-resource.
func Has(ctx context.Context, api client.Interface, gvr schema.GroupVersionResource, subresource string) (bool, error) {
	config := api.RESTConfig()
	if config == nil {
		return false, errors.New("no way to ask what the API server serves")
	}
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return false, err
	}
	list, err := d.ServerResourcesForGroupVersionWithContext(ctx, gvr.GroupVersion().String())
	if err != nil {
		return false, err
	}
	for _, r := range list.APIResources {
		if r.Name == gvr.Resource+"/"+subresource {
			return true, nil
		}
	}
	return false, nil
}
