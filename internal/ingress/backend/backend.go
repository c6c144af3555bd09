// SPDX-License-Identifier: Apache-2.0

// Package backend keeps the endpoints of Services at hand: a pool for each port
// that an Ingress or a route leads to, which follows the EndpointSlices. Pods
// are addressed directly; the Services' own addresses are not used.
package backend

import (
	"context"
	"net"
	"slices"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"kaji/internal/client"
	"kaji/internal/ingress/upstream"
)

// Ref names a port of a Service. It is comparable.
type Ref struct {
	Namespace, Service string
	Port               networkingv1.ServiceBackendPort
}

// Watcher watches Services and their endpoints. It is safe for concurrent use.
type Watcher struct {
	services client.Typed[*corev1.Service]
	slices   client.Typed[*discoveryv1.EndpointSlice]
	changed  func()
	start    sync.Once

	mu    sync.Mutex // guards pools
	pools map[string]map[Ref]*upstream.Pool
}

const byService = "ingress.service"

// New returns a watcher; nothing is watched before Start. changed is called
// when a Service comes, goes or is another; endpoints alone reach the pools
// without it.
func New(api client.Interface, changed func()) *Watcher {
	return &Watcher{services: client.For[*corev1.Service](api), slices: client.For[*discoveryv1.EndpointSlice](api), changed: changed,
		pools: map[string]map[Ref]*upstream.Pool{}}
}

// Start watches, and waits for the first lists; false says that ctx ended
// before. Calling it again only waits.
func (w *Watcher) Start(ctx context.Context) bool {
	w.start.Do(func() {
		w.slices.AddIndex(byService, func(s *discoveryv1.EndpointSlice) []string {
			return []string{s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]}
		})
		service := func(s *corev1.Service) { w.refresh(s.Namespace, s.Name); w.changed() }
		w.services.AddHandler(client.Handler[*corev1.Service]{Add: service, Delete: service, Update: func(_, s *corev1.Service) { service(s) }})
		slice := func(s *discoveryv1.EndpointSlice) { w.refresh(s.Namespace, s.Labels[discoveryv1.LabelServiceName]) }
		w.slices.AddHandler(client.Handler[*discoveryv1.EndpointSlice]{Add: slice, Delete: slice, Update: func(old, s *discoveryv1.EndpointSlice) {
			if old.Labels[discoveryv1.LabelServiceName] != s.Labels[discoveryv1.LabelServiceName] {
				slice(old)
			}
			slice(s)
		}})
	})
	return client.WaitForSync(ctx, w.services.Informer(), w.slices.Informer())
}

// refresh sets the endpoints of a Service's pools.
func (w *Watcher) refresh(namespace, service string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ref, pool := range w.pools[namespace+"/"+service] {
		pool.Set(w.resolve(ref))
	}
}

// Pool returns the pool of a backend. It stays the same as long as Keep keeps it.
func (w *Watcher) Pool(ref Ref) *upstream.Pool {
	key := ref.Namespace + "/" + ref.Service
	w.mu.Lock()
	defer w.mu.Unlock()
	pool := w.pools[key][ref]
	if pool == nil {
		pool = &upstream.Pool{}
		pool.Set(w.resolve(ref))
		if w.pools[key] == nil {
			w.pools[key] = map[Ref]*upstream.Pool{}
		}
		w.pools[key][ref] = pool
	}
	return pool
}

// Keep forgets the pools of all other backends. Who holds one may go on with
// it, but its endpoints no longer change.
func (w *Watcher) Keep(wanted map[Ref]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, pools := range w.pools {
		for ref := range pools {
			if !wanted[ref] {
				delete(pools, ref)
			}
		}
		if len(pools) == 0 {
			delete(w.pools, key)
		}
	}
}

// Service returns a Service, or nil. It must not be changed.
func (w *Watcher) Service(namespace, name string) *corev1.Service {
	s, err := w.services.Cached(namespace, name)
	if err != nil {
		return nil
	}
	return s
}

// port is the index of a backend's port in its Service, or -1.
func port(s *corev1.Service, ref Ref) int {
	return slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
		return (p.Protocol == "" || p.Protocol == corev1.ProtocolTCP) && (ref.Port.Name != "" && p.Name == ref.Port.Name || ref.Port.Name == "" && p.Port == ref.Port.Number)
	})
}

// HasPort says whether the Service has the backend's port.
func HasPort(s *corev1.Service, ref Ref) bool { return port(s, ref) >= 0 }

// resolve returns the addresses of a backend's ready endpoints and what they
// speak, as the Service says.
func (w *Watcher) resolve(ref Ref) ([]string, string) {
	service := w.Service(ref.Namespace, ref.Service)
	if service == nil {
		return nil, ""
	}
	at := port(service, ref)
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		number := ref.Port.Number
		if at >= 0 {
			number = service.Spec.Ports[at].Port
		}
		if number == 0 {
			return nil, ""
		}
		return []string{net.JoinHostPort(service.Spec.ExternalName, strconv.Itoa(int(number)))}, ""
	}
	if at < 0 {
		return nil, ""
	}
	protocol := ""
	if p := service.Spec.Ports[at].AppProtocol; p != nil {
		protocol = *p
	}
	return addresses(w.slices.ByIndex(byService, ref.Namespace+"/"+ref.Service), service.Spec.Ports[at].Name), protocol
}

// addresses are those of the ready endpoints of a named port, or, where none is
// ready, of those that end but still serve, as Services have it.
func addresses(all []*discoveryv1.EndpointSlice, port string) []string {
	var ready, ending []string
	for _, s := range all {
		if s.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		number := portNumber(s, port)
		if number == "" {
			continue
		}
		for _, e := range s.Endpoints {
			if len(e.Addresses) == 0 {
				continue
			}
			to := net.JoinHostPort(e.Addresses[0], number)
			switch is := e.Conditions; {
			case is.Ready == nil || *is.Ready:
				ready = append(ready, to)
			case is.Serving != nil && *is.Serving && is.Terminating != nil && *is.Terminating:
				ending = append(ending, to)
			}
		}
	}
	if len(ready) == 0 {
		ready = ending
	}
	slices.Sort(ready)
	return slices.Compact(ready)
}

func portNumber(s *discoveryv1.EndpointSlice, name string) string {
	for _, p := range s.Ports {
		if p.Port != nil && (p.Name == nil && name == "" || p.Name != nil && *p.Name == name) && (p.Protocol == nil || *p.Protocol == corev1.ProtocolTCP) {
			return strconv.Itoa(int(*p.Port))
		}
	}
	return ""
}
