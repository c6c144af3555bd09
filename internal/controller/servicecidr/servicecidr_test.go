// SPDX-License-Identifier: Apache-2.0

package servicecidr_test

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/servicecidr"
	"kaji/kajitest"
)

func TestRangesStayWhileTheyAreNeeded(t *testing.T) {
	start := func(api client.Interface) []bubble.Controller { return []bubble.Controller{servicecidr.New(api, nil)} }
	bubble.RunAs(t, "service-cidrs-controller", start, func(b *bubble.Bubble) {
		ctx, ranges, services := b.Context(), client.For[*networkingv1.ServiceCIDR](b.API), client.For[*corev1.Service](b.API)
		ready := func(name string) metav1.Condition {
			b.Helper()
			r := bubble.Must(ranges.Get(ctx, "", name))(b)
			if len(r.Status.Conditions) != 1 || len(r.Finalizers) != 1 || r.Finalizers[0] != "networking.k8s.io/service-cidr-finalizer" {
				b.Fatalf("%s: %+v %v", name, r.Status.Conditions, r.Finalizers)
			}
			return r.Status.Conditions[0]
		}
		gone := func(name string) bool {
			_, err := ranges.Get(ctx, "", name)
			return apierrors.IsNotFound(err)
		}
		more := func(name, cidr string) {
			b.Helper()
			bubble.Must(ranges.Create(ctx, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{cidr}}}))(b)
			b.Settle()
		}
		remove := func(name string) {
			b.Helper()
			if err := ranges.Delete(ctx, "", name, metav1.DeleteOptions{}); err != nil {
				b.Fatal(err)
			}
			b.Settle()
		}
		if c := ready("kubernetes"); c.Status != metav1.ConditionTrue || c.Message != "Kubernetes Service CIDR is ready" || c.Reason != "" {
			b.Errorf("the first range: %+v", c)
		}
		more("two", "10.97.0.0/24")
		bubble.Must(services.Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"},
			Spec: corev1.ServiceSpec{ClusterIP: "10.97.0.7", Ports: []corev1.ServicePort{{Port: 80}}}}))(b)
		b.Settle()
		remove("two")
		if c := ready("two"); c.Status != metav1.ConditionFalse || c.Reason != "Terminating" ||
			c.Message != "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR" {
			b.Errorf("with an address: %+v", c)
		}
		b.Wait(30e9)
		ready("two")
		// A larger one takes over.
		more("three", "10.97.0.0/16")
		b.Wait(15e9)
		if !gone("two") {
			b.Error("its addresses are in another, and it stays")
		}
		remove("three")
		ready("three")
		if err := services.Delete(ctx, "default", "s", metav1.DeleteOptions{}); err != nil {
			b.Fatal(err)
		}
		b.Wait(15e9)
		if !gone("three") {
			b.Error("its last address is gone, and it stays")
		}
		more("four", "10.98.0.0/24")
		remove("four")
		ready("four") // for ten seconds
		b.Wait(10e9)
		if !gone("four") {
			b.Error("an empty one stays")
		}
	}, kajitest.WithServer(func(c *apiserver.Config) { c.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/24")} }))
}
