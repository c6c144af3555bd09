// SPDX-License-Identifier: Apache-2.0

package endpoints_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/endpoints"
	"kaji/kajitest"
)

var labels = map[string]string{"app": "web"}

func pod(b *bubble.Bubble, name, ip string, ready bool) {
	b.Helper()
	pods := client.For[*corev1.Pod](b.API)
	p := bubble.Must(pods.Create(b.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: labels},
		Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "a", Image: "a"}}}}))(b).DeepCopy()
	p.Status.Phase, p.Status.PodIP, p.Status.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
	if ready {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	bubble.Must(pods.UpdateStatus(b.Context(), p))(b)
}

func run(t *testing.T, test func(*bubble.Bubble)) {
	bubble.RunAs(t, "endpoint-controller", func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{endpoints.New(endpoints.Config{Client: api})}
	}, test,
		kajitest.WithServer(func(c *apiserver.Config) { c.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")} }))
}

func TestEndpointsFollowPods(t *testing.T) {
	run(t, func(b *bubble.Bubble) {
		ctx, services, all := b.Context(), client.For[*corev1.Service](b.API), client.For[*corev1.Endpoints](b.API)
		bubble.Must(services.Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Labels: map[string]string{"l": "v"}},
			Spec: corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Name: "a", Port: 1, Protocol: corev1.ProtocolTCP},
				{Name: "b", Port: 2, Protocol: corev1.ProtocolUDP, TargetPort: intstr.FromInt32(5)}}}}))(b)
		b.Settle()
		if e := bubble.Must(all.Get(ctx, "default", "web"))(b); len(e.Subsets) != 0 || e.Labels["endpoints.kubernetes.io/managed-by"] != "endpoint-controller" || e.Labels["l"] != "v" {
			b.Errorf("without pods: %+v", e)
		}
		pod(b, "p2", "10.0.0.2", false)
		pod(b, "p1", "10.0.0.1", true)
		b.Settle()
		e := bubble.Must(all.Get(ctx, "default", "web"))(b)
		// The order of the ports is that of their hashes.
		if len(e.Subsets) != 1 || fmt.Sprint(e.Subsets[0].Ports[0].Name, e.Subsets[0].Ports[0].Port, e.Subsets[0].Ports[1].Name) != "b5a" ||
			e.Subsets[0].Addresses[0].IP != "10.0.0.1" || e.Subsets[0].NotReadyAddresses[0].TargetRef.Name != "p2" {
			b.Errorf("got %+v", e.Subsets)
		}
		if err := services.Delete(ctx, "default", "web", metav1.DeleteOptions{}); err != nil {
			b.Fatal(err)
		}
		b.Settle()
		if _, err := all.Get(ctx, "default", "web"); !apierrors.IsNotFound(err) {
			b.Errorf("the Service is gone: %v", err)
		}
	})
}

func TestAThousandAddressesAreKept(t *testing.T) {
	run(t, func(b *bubble.Bubble) {
		for i := range 1010 {
			pod(b, fmt.Sprint("p", i), fmt.Sprintf("10.0.%d.%d", i/250, i%250+1), i >= 20)
		}
		bubble.Must(client.For[*corev1.Service](b.API).Create(b.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Selector: labels, Ports: []corev1.ServicePort{{Port: 1, Protocol: corev1.ProtocolTCP}}}}))(b)
		b.Settle()
		e := bubble.Must(client.For[*corev1.Endpoints](b.API).Get(b.Context(), "default", "web"))(b)
		if len(e.Subsets[0].Addresses) != 990 || len(e.Subsets[0].NotReadyAddresses) != 10 || e.Annotations[corev1.EndpointsOverCapacity] != "truncated" {
			b.Errorf("%d and %d addresses, %v", len(e.Subsets[0].Addresses), len(e.Subsets[0].NotReadyAddresses), e.Annotations)
		}
		if _, ok := e.Labels[corev1.IsHeadlessService]; !ok {
			b.Errorf("labels %v", e.Labels)
		}
	})
}

// Changes of pods wait for others as long as they are told to.
func TestBatch(t *testing.T) {
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{endpoints.New(endpoints.Config{Client: api, Batch: time.Minute})}
	}
	bubble.RunAs(t, "endpoint-controller", start, func(b *bubble.Bubble) {
		bubble.Must(client.For[*corev1.Service](b.API).Create(b.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Selector: labels, Ports: []corev1.ServicePort{{Port: 1}}}}))(b)
		b.Settle()
		subsets := func() int {
			return len(bubble.Must(client.For[*corev1.Endpoints](b.API).Get(b.Context(), "default", "web"))(b).Subsets)
		}
		pod(b, "p", "10.0.0.1", true)
		b.Wait(50 * time.Second)
		if subsets() != 0 {
			b.Error("written at once")
		}
		b.Wait(20 * time.Second)
		if subsets() != 1 {
			b.Error("not written")
		}
	})
}
