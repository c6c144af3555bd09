// SPDX-License-Identifier: Apache-2.0

// Package proxy passes requests through to nodes, pods and services: logs,
// exec, attach and port-forward to the kubelet, and the proxy subresources to
// whatever listens there.
//
// The API server mounts its subresources; who may use them was decided before.
// It dials out on behalf of users, and refuses addresses that lead back to the
// server's own host.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilproxy "k8s.io/apimachinery/pkg/util/proxy"

	"kaji/internal/api"
	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/verb"
)

// Objects reads the present state; package object implements it.
type Objects interface {
	Fetch(ctx context.Context, gvk schema.GroupVersionKind, namespace, name string) (api.Object, error)
	// Each visits the objects of a namespace until visit returns false.
	Each(ctx context.Context, gvk schema.GroupVersionKind, namespace string, visit func(api.Object) bool) error
}

// Config configures the subresources. Objects is needed.
type Config struct {
	Objects   Objects
	Admission admission.Chain
	// KubeletTLS is how the server shows itself to kubelets and which of them
	// it trusts; nil trusts any.
	KubeletTLS *tls.Config
	// AddressTypes are the node addresses to dial, the preferred first;
	// upstream's order when empty.
	AddressTypes []corev1.NodeAddressType
	// Dial replaces how nodes, pods and services are reached.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Proxy serves the subresources. It is safe for concurrent use.
type Proxy struct {
	Config
	kubelet  *http.Transport
	anywhere *http.Transport
}

// kubeletPort is where kubelets listen when their Node does not say.
const kubeletPort = 10250

// New returns a Proxy.
func New(cfg Config) *Proxy {
	if len(cfg.AddressTypes) == 0 {
		cfg.AddressTypes = []corev1.NodeAddressType{
			corev1.NodeHostName, corev1.NodeInternalDNS, corev1.NodeInternalIP, corev1.NodeExternalDNS, corev1.NodeExternalIP,
		}
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	kubelet := cfg.KubeletTLS
	if kubelet == nil {
		// Kubelets without a cluster-signed certificate can be reached all the
		// same, as upstream does without --kubelet-certificate-authority.
		kubelet = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // see above
	}
	return &Proxy{
		Config:  cfg,
		kubelet: &http.Transport{DialContext: cfg.Dial, TLSClientConfig: kubelet, MaxIdleConnsPerHost: 25, IdleConnTimeout: 90 * time.Second},
		anywhere: &http.Transport{
			DialContext: cfg.Dial, IdleConnTimeout: 90 * time.Second,
			// Whoever may proxy to a pod or service knows what it is.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, //nolint:gosec // see above
		},
	}
}

var (
	podKind     = corev1.SchemeGroupVersion.WithKind("Pod")
	nodeKind    = corev1.SchemeGroupVersion.WithKind("Node")
	serviceKind = corev1.SchemeGroupVersion.WithKind("Service")
)

var (
	proxyMethods  = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions}
	streamMethods = []string{http.MethodGet, http.MethodPost}
)

// Subresources are what the server mounts.
func (p *Proxy) Subresources() []verb.Subresource {
	connect := func(resource, name, kind string, methods []string, serve func(http.ResponseWriter, *http.Request, *request.Info) error) verb.Subresource {
		return verb.Subresource{
			Resource: schema.GroupResource{Resource: resource}, Name: name,
			GVK: corev1.SchemeGroupVersion.WithKind(kind), Methods: methods, Connect: serve,
		}
	}
	return []verb.Subresource{
		connect("pods", "log", "Pod", []string{http.MethodGet}, p.log),
		connect("pods", "exec", "PodExecOptions", streamMethods, p.exec),
		connect("pods", "attach", "PodAttachOptions", streamMethods, p.attach),
		connect("pods", "portforward", "PodPortForwardOptions", streamMethods, p.portForward),
		connect("pods", "proxy", "PodProxyOptions", proxyMethods, p.pod),
		connect("services", "proxy", "ServiceProxyOptions", proxyMethods, p.service),
		connect("nodes", "proxy", "NodeProxyOptions", proxyMethods, p.node),
	}
}

// admit asks admission about a connection.
func (p *Proxy) admit(ctx context.Context, in *request.Info, options runtime.Object) error {
	attrs := admission.Of(ctx, in, admission.Connect, nil, false).With(options, nil)
	attrs.Kind = corev1.SchemeGroupVersion.WithKind(strings.TrimPrefix(fmt.Sprintf("%T", options), "*v1."))
	if err := p.Admission.Mutate(ctx, attrs); err != nil {
		return err
	}
	return p.Admission.Validate(ctx, attrs)
}

// kubeletOf returns where a node's kubelet listens.
func (p *Proxy) kubeletOf(ctx context.Context, nodeName string) (*url.URL, error) {
	obj, err := p.Objects.Fetch(ctx, nodeKind, "", nodeName)
	if err != nil {
		return nil, err
	}
	node := obj.(*corev1.Node)
	host, err := preferred(node.Status.Addresses, p.AddressTypes)
	if err != nil {
		return nil, err
	}
	port := int(node.Status.DaemonEndpoints.KubeletEndpoint.Port)
	if port == 0 {
		port = kubeletPort
	}
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(port))}, nil
}

// Kubelet asks a node's kubelet for a path. The caller closes the body.
func (p *Proxy) Kubelet(ctx context.Context, nodeName, path string) (*http.Response, error) {
	at, err := p.kubeletOf(ctx, nodeName)
	if err != nil {
		return nil, err
	}
	at.Path = path
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	return p.kubelet.RoundTrip(r)
}

func preferred(addresses []corev1.NodeAddress, types []corev1.NodeAddressType) (string, error) {
	for _, t := range types {
		for _, a := range addresses {
			if a.Type == t {
				return a.Address, nil
			}
		}
	}
	return "", fmt.Errorf("no preferred addresses found; known addresses: %v", addresses)
}

var errNotAllowed = errors.New("address not allowed")

// proxyable refuses addresses by which the server would reach its own host.
func proxyable(address string) error {
	ip := net.ParseIP(address)
	if ip == nil || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast() || ip.IsInterfaceLocalMulticast() || ip.IsUnspecified() {
		return apierrors.NewBadRequest(errNotAllowed.Error())
	}
	return nil
}

// responder answers what goes wrong while passing through.
type responder struct{}

// Error implements the interface of apimachinery's proxy.
func (responder) Error(w http.ResponseWriter, r *http.Request, err error) {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		err = apierrors.NewServiceUnavailable(fmt.Sprintf("error trying to reach service: %v", err))
	}
	verb.Fail(w, r, err)
}

// pass hands a request on to location, whole or as an upgraded connection.
func pass(w http.ResponseWriter, r *http.Request, location *url.URL, transport http.RoundTripper) {
	h := utilproxy.NewUpgradeAwareHandler(location, transport, true, false, responder{})
	h.ServeHTTP(w, r)
}

// rest returns what follows the subresource "proxy" in the path: nothing when
// not even a slash does, which sends readers to the path with one.
func rest(in *request.Info) string {
	path := ""
	if len(in.Parts) > 3 {
		path = "/" + strings.Join(in.Parts[3:], "/")
	}
	if strings.HasSuffix(in.Path, "/") && !strings.HasSuffix(path, "/") {
		path += "/"
	}
	return path
}

// splitName reads "name", "name:port" or "scheme:name:port".
func splitName(id string) (scheme, name, port string, ok bool) {
	parts := strings.Split(id, ":")
	switch len(parts) {
	case 1:
		return "http", parts[0], "", true
	case 2:
		return "http", parts[0], parts[1], true
	case 3:
		if parts[0] == "" {
			parts[0] = "http"
		}
		if parts[0] != "http" && parts[0] != "https" {
			return "", "", "", false
		}
		return parts[0], parts[1], parts[2], true
	}
	return "", "", "", false
}
