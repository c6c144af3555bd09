// SPDX-License-Identifier: Apache-2.0

package endpointslice_test

import (
	"net/netip"

	"context"
	"fmt"
	stdslices "slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/controller/endpointslice"
	"kaji/kajitest"
)

func TestAServiceHasSlicesOfItsPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		api := kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) {
			c.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
		})).Client()
		c := endpointslice.New(api, nil)
		api.Start(ctx)
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		defer func() { cancel(); <-done }()
		settle := func() { <-time.After(time.Second); synctest.Wait() }
		must := func(_ any, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		labels := map[string]string{"app": "web"}
		pods, slices := client.For[*corev1.Pod](api), client.For[*discoveryv1.EndpointSlice](api)
		must(client.For[*corev1.Node](api).Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelTopologyZone: "z"}}}))
		must(client.For[*corev1.Service](api).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ServiceSpec{
			ClusterIP: corev1.ClusterIPNone, Selector: labels,
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("web")}}}}))
		settle()
		list := func(want int) []*discoveryv1.EndpointSlice {
			t.Helper()
			settle()
			all, err := slices.List(ctx, "default", metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=web"})
			must(nil, err)
			all = stdslices.DeleteFunc(all, func(s *discoveryv1.EndpointSlice) bool { return s.AddressType != discoveryv1.AddressTypeIPv4 })
			if len(all) != want {
				t.Fatalf("%d slices, want %d", len(all), want)
			}
			return all
		}
		if s := list(1)[0]; len(s.Endpoints) != 0 || s.GenerateName != "web-" || len(s.OwnerReferences) != 1 {
			t.Errorf("without pods: %+v", s)
		}
		const many = 101
		for i := range many {
			pod, err := pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("p%03d", i), Labels: labels},
				Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "a", Image: "a",
					Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}}}}})
			must(pod, err)
			pod = pod.DeepCopy()
			pod.Status.Phase, pod.Status.PodIP = corev1.PodRunning, fmt.Sprintf("10.0.0.%d", i+1)
			pod.Status.PodIPs = []corev1.PodIP{{IP: pod.Status.PodIP}}
			if i > 0 {
				pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
			}
			must(pods.UpdateStatus(ctx, pod))
		}
		total, ready := 0, 0
		for _, s := range list(2) {
			if len(s.Endpoints) > 100 || len(s.Ports) != 1 || *s.Ports[0].Port != 8080 {
				t.Errorf("%s: %d endpoints, ports %v", s.Name, len(s.Endpoints), s.Ports)
			}
			if _, ok := s.Labels[corev1.IsHeadlessService]; !ok {
				t.Errorf("%s is not labelled headless", s.Name)
			}
			for _, e := range s.Endpoints {
				total++
				if *e.Conditions.Ready {
					ready++
				}
				if *e.NodeName != "n" || *e.Zone != "z" || e.TargetRef.Kind != "Pod" {
					t.Errorf("endpoint %+v", e)
				}
			}
		}
		if total != many || ready != many-1 {
			t.Errorf("%d endpoints, %d ready", total, ready)
		}
	})
}
