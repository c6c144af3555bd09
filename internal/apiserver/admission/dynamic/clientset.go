// SPDX-License-Identifier: Apache-2.0

package dynamic

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/openapi"

	"kaji/internal/client"
)

// Schemas are OpenAPI v3 documents by their place, such as "apis/apps/v1".
type Schemas interface {
	// Index returns what identifies the content of each document.
	Index() map[string]string
	// Document returns one as JSON.
	Document(place string) ([]byte, error)
}

// clientset is the little of a Kubernetes client that the plug-ins use: live
// reads of namespaces, and schemas.
type clientset struct {
	kubernetes.Interface
	client  client.Verbs
	schemas Schemas
}

// CoreV1 implements kubernetes.Interface.
func (c *clientset) CoreV1() typedcorev1.CoreV1Interface { return coreV1{client: c.client} }

// Discovery implements kubernetes.Interface.
func (c *clientset) Discovery() discovery.DiscoveryInterfaces { return discoverer{schemas: c.schemas} }

type coreV1 struct {
	typedcorev1.CoreV1Interface
	client client.Verbs
}

// Namespaces implements typedcorev1.CoreV1Interface.
func (c coreV1) Namespaces() typedcorev1.NamespaceInterface { return namespaces{client: c.client} }

type namespaces struct {
	typedcorev1.NamespaceInterface
	client client.Verbs
}

// Get implements typedcorev1.NamespaceInterface.
func (n namespaces) Get(ctx context.Context, name string, opts metav1.GetOptions) (*corev1.Namespace, error) {
	obj, err := n.client.Get(ctx, client.Resource{GroupVersionResource: namespaceResource}, name, opts)
	if err != nil {
		return nil, err
	}
	ns, ok := obj.(*corev1.Namespace)
	if !ok {
		return nil, fmt.Errorf("namespace %s is a %T", name, obj)
	}
	return ns, nil
}

type discoverer struct {
	discovery.DiscoveryInterfaces
	schemas Schemas
}

// OpenAPIV3 implements discovery.DiscoveryInterface.
func (d discoverer) OpenAPIV3() openapi.Client { return d }

// Paths implements openapi.Client.
func (d discoverer) Paths() (map[string]openapi.GroupVersion, error) {
	paths := map[string]openapi.GroupVersion{}
	for place, identity := range d.schemas.Index() {
		paths[place] = document{d.schemas, place, identity}
	}
	return paths, nil
}

// document is one of the schemas.
type document struct {
	schemas         Schemas
	place, identity string
}

// Schema implements openapi.GroupVersion.
func (d document) Schema(contentType string) ([]byte, error) {
	if contentType != runtime.ContentTypeJSON {
		return nil, fmt.Errorf("no schema as %s", contentType)
	}
	return d.schemas.Document(d.place)
}

// ServerRelativeURL implements openapi.GroupVersion.
func (d document) ServerRelativeURL() string { return "/openapi/v3/" + d.place + "?hash=" + d.identity }
