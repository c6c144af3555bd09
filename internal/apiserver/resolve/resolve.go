// SPDX-License-Identifier: Apache-2.0

// Package resolve finds where a Service answers, for what the API server calls
// itself: webhooks and aggregated API servers; and it bounds what a webhook may
// answer.
//
// It reads the Services and EndpointSlices in the cache and opens no connection.
package resolve

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/util/proxy"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
)

// Services resolves Services by their cluster IP, or by their endpoints. It is
// safe for concurrent use.
type Services struct {
	// Cache and Kind are where Services are read.
	Cache *cache.Cache
	Kind  *api.Kind
	// Slices are the EndpointSlices, one of whose endpoints is taken; nil takes the
	// cluster IP.
	Slices *api.Kind
}

// ResolveEndpoint returns the https URL of a Service's port, as
// webhook.ServiceResolver of k8s.io/apiserver demands.
func (s *Services) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	entry, found, err := s.Cache.Get(context.Background(), s.Kind, namespace, name)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, apierrors.NewNotFound(corev1.Resource("service"), name)
	}
	service := entry.Object.(*corev1.Service)
	if s.Slices != nil {
		return s.endpoint(service, port)
	}
	host := ""
	switch spec := &service.Spec; {
	case spec.Type == corev1.ServiceTypeExternalName:
		host = spec.ExternalName
	case spec.ClusterIP == corev1.ClusterIPNone:
		return nil, fmt.Errorf("cluster IP of service %q/%q is None", namespace, name)
	case spec.ClusterIP == "":
		return nil, fmt.Errorf("service %q/%q has no cluster IP", namespace, name)
	default:
		if err := hasPort(service, port); err != nil {
			return nil, err
		}
		host = spec.ClusterIP
	}
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(int(port)))}, nil
}

// endpoint returns the https URL of one of a Service's endpoints.
func (s *Services) endpoint(service *corev1.Service, port int32) (*url.URL, error) {
	spec := &service.Spec
	if spec.Type == corev1.ServiceTypeExternalName {
		return nil, fmt.Errorf("unsupported service type %q", spec.Type)
	}
	at := slices.IndexFunc(spec.Ports, func(p corev1.ServicePort) bool { return p.Port == port })
	if at < 0 {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", port, service.Name))
	}
	snapshot, err := s.Cache.Snapshot(context.Background(), s.Slices)
	if err != nil {
		return nil, err
	}
	var all []*discoveryv1.EndpointSlice
	for e := range snapshot.All(service.Namespace, "") {
		if slice := e.Object.(*discoveryv1.EndpointSlice); slice.Labels[discoveryv1.LabelServiceName] == service.Name {
			all = append(all, slice)
		}
	}
	family := corev1.IPFamilyUnknown
	if len(spec.IPFamilies) > 0 {
		family = spec.IPFamilies[0]
	}
	host, err := proxy.RandomEndpoint(service.Name, all, spec.Ports[at].Name, family, nil)
	if err != nil {
		return nil, err
	}
	return &url.URL{Scheme: "https", Host: host}, nil
}

func hasPort(service *corev1.Service, port int32) error {
	for i := range service.Spec.Ports {
		if service.Spec.Ports[i].Port == port {
			return nil
		}
	}
	return fmt.Errorf("no service port %d found for service %q", port, service.Name)
}
