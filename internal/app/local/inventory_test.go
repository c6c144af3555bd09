// SPDX-License-Identifier: Apache-2.0

package local

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/kajitest"
)

func create[T client.Object](t *testing.T, api client.Interface, o T) {
	t.Helper()
	if _, err := client.For[T](api).Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

func TestInventory(t *testing.T) {
	api := kajitest.Start(t).Client()
	create(t, api, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kaji-network"},
		Data: map[string]string{"podCIDRs": "10.244.0.0/16", "dns": "10.96.0.10", "domain": "cluster.local", "off": "ingress"}})
	for i := range 5 {
		create(t, api, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("pod-", i)},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x"}}}})
		create(t, api, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("e", i)}, Type: corev1.EventTypeWarning, Reason: "Failed",
			Message: "no such image\nat all", LastTimestamp: metav1.NewTime(time.Now().Add(time.Duration(i-5) * time.Minute)), InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: fmt.Sprint("pod-", i)}})
	}
	create(t, api, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}}})
	var out strings.Builder
	if err := inventory(t.Context(), api, func(name, format string, args ...any) { fmt.Fprintf(&out, name+": "+format+"\n", args...) }); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"network: pods 10.244.0.0/16, name server 10.96.0.10 for cluster.local\n", "left out: ingress\n",
		"pods: 5, 0 of them ready; not ready: default/pod-0, default/pod-1, default/pod-2 and 2 more\n",
		"load balancer: default/web, WARNING: it has no address", "warning: pod default/pod-4: Failed: no such image\n", "warning: 2 more in the last hour",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}

func TestFailingChecks(t *testing.T) {
	if got := failing("[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n"); got != "; not passed: etcd" {
		t.Errorf("got %q", got)
	}
	if got := left(1<<30, 100<<30); !strings.Contains(got, "WARNING") {
		t.Errorf("a disk that is nearly full: %q", got)
	}
}
