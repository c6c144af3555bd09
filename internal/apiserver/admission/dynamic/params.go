// SPDX-License-Identifier: Apache-2.0

package dynamic

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"kaji/internal/client"
)

// anyResource is the little of a dynamic client that the policies use: live
// reads of parameters that their informers do not have yet.
type anyResource struct {
	dynamic.Interface
	client client.Verbs
}

// Resource implements dynamic.Interface.
func (a anyResource) Resource(gvr schema.GroupVersionResource) dynamic.NamespaceableResourceInterface {
	return resourceReader{client: a.client, resource: client.Resource{GroupVersionResource: gvr}}
}

type resourceReader struct {
	dynamic.NamespaceableResourceInterface
	client   client.Verbs
	resource client.Resource
}

// Namespace implements dynamic.NamespaceableResourceInterface.
func (r resourceReader) Namespace(namespace string) dynamic.ResourceInterface {
	r.resource.Namespace = namespace
	return r
}

// Get implements dynamic.ResourceInterface.
func (r resourceReader) Get(ctx context.Context, name string, opts metav1.GetOptions, _ ...string) (*unstructured.Unstructured, error) {
	obj, err := r.client.Get(ctx, r.resource, name, opts)
	if err != nil {
		return nil, err
	}
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return u, nil
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, err
	}
	return &unstructured.Unstructured{Object: content}, nil
}

// List implements dynamic.ResourceInterface.
func (r resourceReader) List(ctx context.Context, opts metav1.ListOptions) (*unstructured.UnstructuredList, error) {
	list, err := r.client.List(ctx, r.resource, opts)
	if err != nil {
		return nil, err
	}
	if u, ok := list.(*unstructured.UnstructuredList); ok {
		return u, nil
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(list)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: content}
	return u.ToList()
}
