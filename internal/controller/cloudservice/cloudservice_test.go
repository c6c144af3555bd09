// SPDX-License-Identifier: Apache-2.0

package cloudservice_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/cloudservice"
	"kaji/kajitest"
)

// balancers is a cloud's balancers in memory: names of nodes by Service.
type balancers struct {
	mu    sync.Mutex
	nodes map[string]string
	full  bool
}

func (b *balancers) Ensure(ctx context.Context, cluster string, s *corev1.Service, nodes []*corev1.Node) (*corev1.LoadBalancerStatus, error) {
	if b.full {
		return nil, errors.New("no more balancers")
	}
	return &corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "203.0.113.7"}}}, b.Update(ctx, cluster, s, nodes)
}

func (b *balancers) Update(_ context.Context, _ string, s *corev1.Service, nodes []*corev1.Node) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	b.nodes[s.Name] = strings.Join(names, ",")
	return nil
}

func (b *balancers) Delete(_ context.Context, _ string, s *corev1.Service) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.nodes, s.Name)
	return nil
}

// of returns the nodes of a Service's balancer, false if it has none.
func (b *balancers) of(service string) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	nodes, ok := b.nodes[service]
	return nodes, ok
}

func run(t *testing.T, full bool, test func(b *bubble.Bubble, of func(string) (string, bool))) {
	var all *balancers
	start := func(api client.Interface) []bubble.Controller {
		all = &balancers{nodes: map[string]string{}, full: full}
		return []bubble.Controller{cloudservice.New(cloudservice.Config{Client: api, Balancers: all})}
	}
	bubble.RunAs(t, "service-controller", start, func(b *bubble.Bubble) { test(b, func(name string) (string, bool) { return all.of(name) }) },
		kajitest.WithServer(func(c *apiserver.Config) { c.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/24")} }))
}

func node(b *bubble.Bubble, name string) {
	b.Helper()
	bubble.Must(client.For[*corev1.Node](b.API).Create(b.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}))(b)
	b.Settle()
}

func service(b *bubble.Bubble) client.Typed[*corev1.Service] {
	b.Helper()
	services := client.For[*corev1.Service](b.API)
	bubble.Must(services.Create(b.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}}}))(b)
	b.Settle()
	return services
}

func reasons(b *bubble.Bubble) map[string]string {
	b.Helper()
	out := map[string]string{}
	for _, e := range bubble.Must(client.For[*corev1.Event](b.API).List(b.Context(), "default", metav1.ListOptions{}))(b) {
		if e.Source.Component == "service-controller" {
			out[e.Reason] = e.Message
		}
	}
	return out
}

func TestABalancerComesAndGoes(t *testing.T) {
	run(t, false, func(b *bubble.Bubble, of func(string) (string, bool)) {
		node(b, "n")
		services := service(b)
		s := bubble.Must(services.Get(b.Context(), "default", "web"))(b)
		if nodes, ok := of("web"); !ok || nodes != "n" || len(s.Status.LoadBalancer.Ingress) != 1 || s.Status.LoadBalancer.Ingress[0].IP != "203.0.113.7" ||
			len(s.Finalizers) != 1 || s.Finalizers[0] != "service.kubernetes.io/load-balancer-cleanup" {
			b.Fatalf("balancer of %q (%v), status %v, finalizers %v", nodes, ok, s.Status.LoadBalancer, s.Finalizers)
		}
		node(b, "m")
		if nodes, _ := of("web"); nodes != "m,n" {
			b.Errorf("a second node, and the balancer has %s", nodes)
		}
		bubble.Must(client.For[*corev1.Node](b.API).MergePatch(b.Context(), "", "m", map[string]any{"metadata": map[string]any{"labels": map[string]any{corev1.LabelNodeExcludeBalancers: ""}}}, ""))(b)
		b.Settle()
		if nodes, _ := of("web"); nodes != "n" {
			b.Errorf("a node is excluded, and the balancer has %s", nodes)
		}
		if err := services.Delete(b.Context(), "default", "web", metav1.DeleteOptions{}); err != nil {
			b.Fatal(err)
		}
		b.Settle()
		if _, err := services.Get(b.Context(), "default", "web"); !apierrors.IsNotFound(err) {
			b.Errorf("the Service stays: %v", err)
		}
		if _, ok := of("web"); ok {
			b.Error("the balancer stays")
		}
		got := reasons(b)
		for reason, message := range map[string]string{"EnsuringLoadBalancer": "Ensuring load balancer", "EnsuredLoadBalancer": "Ensured load balancer",
			"UpdatedLoadBalancer": "Updated load balancer with new hosts", "DeletingLoadBalancer": "Deleting load balancer"} {
			if got[reason] != message {
				b.Errorf("%s says %q", reason, got[reason])
			}
		}
	})
}

func TestAServiceThatBecomesInternal(t *testing.T) {
	run(t, false, func(b *bubble.Bubble, of func(string) (string, bool)) {
		node(b, "n")
		services := service(b)
		bubble.Must(services.MergePatch(b.Context(), "default", "web", map[string]any{"spec": map[string]any{"type": "ClusterIP"}}, ""))(b)
		b.Settle()
		s := bubble.Must(services.Get(b.Context(), "default", "web"))(b)
		if _, ok := of("web"); ok || len(s.Finalizers) > 0 || len(s.Status.LoadBalancer.Ingress) > 0 {
			b.Errorf("balancer %v, finalizers %v, status %v", ok, s.Finalizers, s.Status.LoadBalancer)
		}
	})
}

func TestACloudWithoutMoreBalancers(t *testing.T) {
	run(t, true, func(b *bubble.Bubble, _ func(string) (string, bool)) {
		node(b, "n")
		service(b)
		if got := reasons(b)["SyncLoadBalancerFailed"]; got != "Error syncing load balancer: failed to ensure load balancer: no more balancers" {
			b.Errorf("the failure says %q", got)
		}
	})
}
