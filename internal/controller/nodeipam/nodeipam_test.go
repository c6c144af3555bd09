// SPDX-License-Identifier: Apache-2.0

package nodeipam_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/nodeipam"
)

// TestRanges: nodes get parts of the range while there are any, and one that gets
// none is told so, until another leaves.
func TestRanges(t *testing.T) {
	start := func(api client.Interface) []bubble.Controller {
		c, err := nodeipam.New(nodeipam.Config{Client: api, CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, MaskIPv4: 25})
		if err != nil {
			t.Fatal(err)
		}
		return []bubble.Controller{c}
	}
	bubble.Run(t, start, func(b *bubble.Bubble) {
		nodes := client.For[*corev1.Node](b.API)
		cidr := func(name string) string {
			return bubble.Must(nodes.Get(b.Context(), "", name))(b).Spec.PodCIDR
		}
		for _, name := range []string{"a", "b", "c"} {
			bubble.Must(nodes.Create(b.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}))(b)
			b.Settle()
		}
		if cidr("a") == "" || cidr("b") == "" || cidr("a") == cidr("b") || cidr("c") != "" {
			b.Errorf("ranges %q, %q and %q", cidr("a"), cidr("b"), cidr("c"))
		}
		events := bubble.Must(client.For[*corev1.Event](b.API).List(b.Context(), "default", metav1.ListOptions{}))(b)
		if !slices.ContainsFunc(events, func(e *corev1.Event) bool {
			return e.InvolvedObject.Name == "c" && e.Reason == "CIDRNotAvailable" && e.Message == "Node c status is now: CIDRNotAvailable"
		}) {
			b.Errorf("events %v", events)
		}
		freed := cidr("a")
		if err := nodes.Delete(b.Context(), "", "a", metav1.DeleteOptions{}); err != nil {
			b.Fatal(err)
		}
		b.Settle()
		if cidr("c") != freed {
			b.Errorf("the range of c is %q, want %q", cidr("c"), freed)
		}
	})
}

// What is Services' goes to no node.
func TestRangeOfServices(t *testing.T) {
	start := func(api client.Interface) []bubble.Controller {
		c, err := nodeipam.New(nodeipam.Config{Client: api, CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, MaskIPv4: 26,
			Services: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/25"), netip.MustParsePrefix("10.0.0.200/32"), netip.MustParsePrefix("10.9.0.0/16")}})
		if err != nil {
			t.Fatal(err)
		}
		return []bubble.Controller{c}
	}
	bubble.Run(t, start, func(b *bubble.Bubble) {
		nodes := client.For[*corev1.Node](b.API)
		for i, want := range []string{"10.0.0.128/26", ""} {
			name := fmt.Sprint("n", i)
			bubble.Must(nodes.Create(b.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}))(b)
			b.Settle()
			if got := bubble.Must(nodes.Get(b.Context(), "", name))(b).Spec.PodCIDR; got != want {
				b.Errorf("node %s has %q, want %q", name, got, want)
			}
		}
	})
}
