// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"kaji/internal/client"
)

// request begins a request of one verb on r.
func (c *Client) request(r client.Resource, verb, name string) (*rest.Request, error) {
	rc, err := c.rest(r.GroupVersion())
	if err != nil {
		return nil, err
	}
	req := rc.Verb(verb).NamespaceIfScoped(r.Namespace, r.Namespace != "").Resource(r.Resource)
	if name != "" {
		req = req.Name(name)
	}
	if r.Subresource != "" {
		req = req.SubResource(r.Subresource)
	}
	return req, nil
}

// params adds options as every group writes them, those of custom resources too,
// which the scheme does not know.
func params(req *rest.Request, opts runtime.Object) *rest.Request {
	return req.SpecificallyVersionedParams(opts, scheme.ParameterCodec, corev1.SchemeGroupVersion)
}

func finish(ctx context.Context, req *rest.Request) (runtime.Object, error) {
	return req.Do(ctx).Get()
}

// Get implements client.Verbs.
func (c *Client) Get(ctx context.Context, r client.Resource, name string, opts metav1.GetOptions) (runtime.Object, error) {
	req, err := c.request(r, "GET", name)
	if err != nil {
		return nil, err
	}
	return finish(ctx, params(req, &opts))
}

// List implements client.Verbs.
func (c *Client) List(ctx context.Context, r client.Resource, opts metav1.ListOptions) (runtime.Object, error) {
	req, err := c.request(r, "GET", "")
	if err != nil {
		return nil, err
	}
	return finish(ctx, params(req, &opts))
}

// Watch implements client.Verbs.
func (c *Client) Watch(ctx context.Context, r client.Resource, opts metav1.ListOptions) (watch.Interface, error) {
	opts.Watch = true
	if !known(r.GroupVersion()) {
		return c.dynamic.Resource(r.GroupVersionResource).Namespace(r.Namespace).Watch(ctx, opts)
	}
	req, err := c.request(r, "GET", "")
	if err != nil {
		return nil, err
	}
	return params(req, &opts).Watch(ctx)
}

// Create implements client.Verbs.
func (c *Client) Create(ctx context.Context, r client.Resource, name string, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error) {
	req, err := c.request(r, "POST", name)
	if err != nil {
		return nil, err
	}
	return finish(ctx, params(req, &opts).Body(obj))
}

// Update implements client.Verbs.
func (c *Client) Update(ctx context.Context, r client.Resource, name string, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	req, err := c.request(r, "PUT", name)
	if err != nil {
		return nil, err
	}
	return finish(ctx, params(req, &opts).Body(obj))
}

// Patch implements client.Verbs.
func (c *Client) Patch(ctx context.Context, r client.Resource, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error) {
	req, err := c.request(r, "PATCH", name)
	if err != nil {
		return nil, err
	}
	return finish(ctx, params(req, &opts).SetHeader("Content-Type", string(pt)).Body(data))
}

// Delete implements client.Verbs.
func (c *Client) Delete(ctx context.Context, r client.Resource, name string, opts metav1.DeleteOptions) error {
	req, err := c.request(r, "DELETE", name)
	if err != nil {
		return err
	}
	return req.Body(&opts).Do(ctx).Error()
}

// DeleteCollection implements client.Verbs.
func (c *Client) DeleteCollection(ctx context.Context, r client.Resource, opts metav1.DeleteOptions, list metav1.ListOptions) error {
	req, err := c.request(r, "DELETE", "")
	if err != nil {
		return err
	}
	return params(req, &list).Body(&opts).Do(ctx).Error()
}
