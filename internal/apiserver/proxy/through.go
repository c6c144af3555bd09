// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kaji/internal/api"
	"kaji/internal/apiserver/request"
)

// node passes a request to a kubelet, or another port of its node.
func (p *Proxy) node(w http.ResponseWriter, r *http.Request, in *request.Info) error {
	ctx := r.Context()
	scheme, name, port, ok := splitName(in.Name)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid node request %q", in.Name))
	}
	if err := p.admit(ctx, in, &corev1.NodeProxyOptions{Path: rest(in)}); err != nil {
		return err
	}
	location, err := p.kubeletOf(ctx, name)
	if err != nil {
		return err
	}
	location.Path = rest(in)
	if port == "" || port == location.Port() {
		pass(w, r, location, p.kubelet)
		return nil
	}
	host := location.Hostname()
	if err := p.mayReach(ctx, host); err != nil {
		return err
	}
	pass(w, r, &url.URL{Scheme: scheme, Host: net.JoinHostPort(host, port), Path: location.Path}, p.anywhere)
	return nil
}

// mayReach refuses hosts that resolve to an address of the server's own host.
func (p *Proxy) mayReach(ctx context.Context, host string) error {
	if net.ParseIP(host) != nil {
		return proxyable(host)
	}
	addrs, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	for _, a := range addrs {
		if err := proxyable(a.IP.String()); err != nil {
			return err
		}
	}
	return nil
}

// pod passes a request to a pod.
func (p *Proxy) pod(w http.ResponseWriter, r *http.Request, in *request.Info) error {
	ctx := r.Context()
	scheme, name, port, ok := splitName(in.Name)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid pod request %q", in.Name))
	}
	if err := p.admit(ctx, in, &corev1.PodProxyOptions{Path: rest(in)}); err != nil {
		return err
	}
	obj, err := p.Objects.Fetch(ctx, podKind, in.Namespace, name)
	if err != nil {
		return err
	}
	pod := obj.(*corev1.Pod)
	if port == "" {
		port = firstPort(pod)
	}
	if err := proxyable(pod.Status.PodIP); err != nil {
		return err
	}
	location := &url.URL{Scheme: scheme, Host: pod.Status.PodIP, Path: rest(in)}
	if port != "" {
		location.Host = net.JoinHostPort(pod.Status.PodIP, port)
	}
	pass(w, r, location, p.anywhere)
	return nil
}

func firstPort(pod *corev1.Pod) string {
	for _, c := range pod.Spec.Containers {
		if len(c.Ports) > 0 {
			return strconv.Itoa(int(c.Ports[0].ContainerPort))
		}
	}
	return ""
}

// service passes a request to a ready endpoint of a service.
func (p *Proxy) service(w http.ResponseWriter, r *http.Request, in *request.Info) error {
	ctx := r.Context()
	scheme, name, port, ok := splitName(in.Name)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid service request %q", in.Name))
	}
	if err := p.admit(ctx, in, &corev1.ServiceProxyOptions{Path: rest(in)}); err != nil {
		return err
	}
	address, err := p.endpoint(ctx, in.Namespace, name, port)
	if err != nil {
		return err
	}
	pass(w, r, &url.URL{Scheme: scheme, Host: address, Path: rest(in)}, p.anywhere)
	return nil
}

// endpoint returns a ready endpoint of a service's port, which is named, or
// numbered as the service numbers it; empty means the one without a name.
func (p *Proxy) endpoint(ctx context.Context, namespace, name, port string) (string, error) {
	if number, err := strconv.ParseInt(port, 10, 32); err == nil {
		obj, err := p.Objects.Fetch(ctx, serviceKind, namespace, name)
		if err != nil {
			return "", err
		}
		found := false
		for _, sp := range obj.(*corev1.Service).Spec.Ports {
			if int64(sp.Port) == number {
				port, found = sp.Name, true
				break
			}
		}
		if !found {
			return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", number, name))
		}
	}
	var candidates []string
	any := false
	err := p.Objects.Each(ctx, discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), namespace, func(obj api.Object) bool {
		slice := obj.(*discoveryv1.EndpointSlice)
		if slice.Labels[discoveryv1.LabelServiceName] != name {
			return true
		}
		for _, e := range slice.Endpoints {
			if len(e.Addresses) == 0 || e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			any = true
			for _, sp := range slice.Ports {
				if sp.Port != nil && (sp.Name == nil && port == "" || sp.Name != nil && *sp.Name == port || port == "" && len(slice.Ports) == 1) {
					candidates = append(candidates, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*sp.Port))))
				}
			}
		}
		return true
	})
	switch {
	case err != nil:
		return "", err
	case !any:
		return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", name))
	case len(candidates) == 0:
		return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %q found for service %q", port, name))
	}
	address := candidates[rand.IntN(len(candidates))]
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	return address, proxyable(host)
}
