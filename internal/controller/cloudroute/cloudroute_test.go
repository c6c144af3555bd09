// SPDX-License-Identifier: Apache-2.0

package cloudroute_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/cloud"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/cloudroute"
)

// table is a cloud's routes in memory.
type table struct {
	mu     sync.Mutex
	routes []cloud.Route
	full   bool
}

func (t *table) List(context.Context, string) ([]cloud.Route, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.routes), nil
}

func (t *table) Create(_ context.Context, _, _ string, r cloud.Route) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.full {
		return errors.New("the table is full")
	}
	t.routes = append(t.routes, r)
	return nil
}

func (t *table) Delete(_ context.Context, _ string, r cloud.Route) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.routes = slices.DeleteFunc(t.routes, func(o cloud.Route) bool { return o.Node == r.Node && o.CIDR == r.CIDR })
	return nil
}

// lines are the routes as text.
func (t *table) lines() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for _, r := range t.routes {
		out = append(out, r.CIDR+" "+r.Node)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func TestRoutesFollowNodes(t *testing.T) {
	var routes *table
	start := func(api client.Interface) []bubble.Controller {
		routes = &table{routes: []cloud.Route{{Node: "gone", CIDR: "10.244.9.0/24"}, {Node: "other", CIDR: "10.0.0.0/24"}, {Blackhole: true, CIDR: "10.244.8.0/24"}}}
		return []bubble.Controller{cloudroute.New(cloudroute.Config{Client: api, Routes: routes, CIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}})}
	}
	bubble.RunAs(t, "route-controller", start, func(b *bubble.Bubble) {
		nodes := client.For[*corev1.Node](b.API)
		create := func(name, cidr string) {
			b.Helper()
			bubble.Must(nodes.Create(b.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: cidr, PodCIDRs: []string{cidr}}}))(b)
			b.Settle()
		}
		condition := func(name string) corev1.NodeCondition {
			b.Helper()
			for _, c := range bubble.Must(nodes.Get(b.Context(), "", name))(b).Status.Conditions {
				if c.Type == corev1.NodeNetworkUnavailable {
					return c
				}
			}
			return corev1.NodeCondition{}
		}
		create("a", "10.244.1.0/24")
		if got := routes.lines(); got != "10.0.0.0/24 other, 10.244.1.0/24 a" {
			b.Errorf("routes %s", got)
		}
		if c := condition("a"); c.Status != corev1.ConditionFalse || c.Reason != "RouteCreated" || c.Message != "RouteController created a route" {
			b.Errorf("a: %+v", c)
		}
		routes.mu.Lock()
		routes.full = true
		routes.mu.Unlock()
		create("b", "10.244.2.0/24")
		if c := condition("b"); c.Status != corev1.ConditionTrue || c.Reason != "NoRouteCreated" || c.Message != "RouteController failed to create a route" {
			b.Errorf("b: %+v", c)
		}
		routes.mu.Lock()
		routes.full = false
		routes.mu.Unlock()
		b.Wait(30e9)
		if c := condition("b"); c.Status != corev1.ConditionFalse {
			b.Errorf("b later: %+v", c)
		}
		if err := nodes.Delete(b.Context(), "", "a", metav1.DeleteOptions{}); err != nil {
			b.Fatal(err)
		}
		b.Wait(20e9)
		if got := routes.lines(); got != "10.0.0.0/24 other, 10.244.2.0/24 b" {
			b.Errorf("at last routes %s", got)
		}
	})
}
