// SPDX-License-Identifier: Apache-2.0

// Package remote is the client engine that speaks HTTP to any API server,
// through client-go's REST client. Components that run apart from the API
// server use it, and so do tests.
package remote

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"kaji/internal/client"
)

// Client implements client.Interface.
type Client struct {
	config   *rest.Config
	http     *http.Client
	dynamic  dynamic.Interface
	metadata metadata.Interface

	metrics cache.InformerMetricsProvider // nil counts nothing
	name    *cache.InformerName

	mu struct {
		sync.Mutex
		clients   map[schema.GroupVersion]rest.Interface
		informers map[informerKey]cache.SharedIndexInformer
		ctx       context.Context // set by Start
		running   sync.WaitGroup
	}
}

type informerKey struct {
	gvr  schema.GroupVersionResource
	opts client.InformerOptions
}

var _ client.Interface = (*Client)(nil)

// New returns a client for the server and identity of config, which it copies.
// Built-in kinds travel as protobuf unless config names a content type.
func New(config *rest.Config) (*Client, error) {
	c := &Client{config: rest.CopyConfig(config)}
	if c.config.QPS == 0 {
		c.config.QPS = -1 // the server's priority and fairness is the limit
	}
	var err error
	if c.http, err = rest.HTTPClientFor(c.config); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if c.dynamic, err = dynamic.NewForConfigAndClient(c.config, c.http); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if c.metadata, err = metadata.NewForConfigAndClient(c.config, c.http); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	c.mu.clients = map[schema.GroupVersion]rest.Interface{}
	c.mu.informers = map[informerKey]cache.SharedIndexInformer{}
	return c, nil
}

// Observe has the informers counted that are made from now on: of every resource
// the first whole one, under the name of the process. The name can be taken once
// at a time; it is free again when the informers have stopped.
func (c *Client) Observe(process string, metrics cache.InformerMetricsProvider) error {
	name, err := cache.NewInformerName(process)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.name, c.metrics = name, metrics
	return nil
}

// RESTConfig implements client.Interface.
func (c *Client) RESTConfig() *rest.Config { return c.config }

// known says whether client-go's scheme has Go types for the version.
func known(gv schema.GroupVersion) bool { return scheme.Scheme.IsVersionRegistered(gv) }

func (c *Client) rest(gv schema.GroupVersion) (rest.Interface, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if rc, ok := c.mu.clients[gv]; ok {
		return rc, nil
	}
	config := rest.CopyConfig(c.config)
	config.GroupVersion = &gv
	config.APIPath = "/apis"
	if gv.Group == "" {
		config.APIPath = "/api"
	}
	if config.ContentType == "" && known(gv) {
		config.ContentType = runtime.ContentTypeProtobuf
		config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	}
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	if !known(gv) {
		config.NegotiatedSerializer = dynamicCodecs
	}
	rc, err := rest.RESTClientForConfigAndClient(config, c.http)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	c.mu.clients[gv] = rc
	return rc, nil
}

var dynamicCodecs = unstructuredNegotiator{}

type unstructuredNegotiator struct{}

func (unstructuredNegotiator) SupportedMediaTypes() []runtime.SerializerInfo {
	return []runtime.SerializerInfo{{
		MediaType:        runtime.ContentTypeJSON,
		MediaTypeType:    "application",
		MediaTypeSubType: "json",
		EncodesAsText:    true,
		Serializer:       unstructured.UnstructuredJSONScheme,
		StreamSerializer: scheme.Codecs.SupportedMediaTypes()[0].StreamSerializer,
	}}
}

func (unstructuredNegotiator) EncoderForVersion(e runtime.Encoder, _ runtime.GroupVersioner) runtime.Encoder {
	return e
}

func (unstructuredNegotiator) DecoderToVersion(d runtime.Decoder, _ runtime.GroupVersioner) runtime.Decoder {
	return d
}
