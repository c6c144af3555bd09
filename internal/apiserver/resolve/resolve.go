// SPDX-License-Identifier: Apache-2.0

// Package resolve finds where a Service answers, for what the API server calls
// itself: webhooks and aggregated API servers; and it bounds what a webhook may
// answer.
//
// It reads the Services in the cache and opens no connection.
package resolve

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
)

// Services resolves Services by their cluster IP. It is safe for concurrent
// use.
type Services struct {
	// Cache and Kind are where Services are read.
	Cache *cache.Cache
	Kind  *api.Kind
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

func hasPort(service *corev1.Service, port int32) error {
	for i := range service.Spec.Ports {
		if service.Spec.Ports[i].Port == port {
			return nil
		}
	}
	return fmt.Errorf("no service port %d found for service %q", port, service.Name)
}
