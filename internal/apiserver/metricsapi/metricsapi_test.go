// SPDX-License-Identifier: Apache-2.0

package metricsapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"

	"kaji/internal/api/metrics"
	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/kajitest"
)

// kubelet is a node's server: every container it was told of uses 250
// millicores and 64 MiB, the node a core.
type kubelet struct {
	*httptest.Server
	pods  []*corev1.Pod
	asked atomic.Int32
	began time.Time
}

func (k *kubelet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/metrics/resource" {
		http.Error(w, "unexpected "+r.URL.Path, http.StatusNotFound)
		return
	}
	k.asked.Add(1)
	now := time.Now()
	used := func(prefix, labels string, cores float64) {
		seconds := now.Sub(k.began).Seconds() * cores
		fmt.Fprintf(w, "%[1]s_cpu_usage_seconds_total%[2]s %[3]f %[4]d\n", prefix, labels, seconds, now.UnixMilli())
		fmt.Fprintf(w, "%[1]s_memory_working_set_bytes%[2]s %[3]d %[4]d\n", prefix, labels, 64<<20, now.UnixMilli())
	}
	used("node", "", 1)
	for _, p := range k.pods {
		for _, c := range p.Spec.Containers {
			used("container", fmt.Sprintf("{container=%q,namespace=%q,pod=%q}", c.Name, p.Namespace, p.Name), 0.25)
		}
	}
}

// node makes a kubelet, its Node and pods that run on it.
func node(t *testing.T, api kubernetes.Interface, pods ...*corev1.Pod) *kubelet {
	k := &kubelet{began: time.Now().Add(-time.Hour)}
	k.Server = httptest.NewTLSServer(k)
	t.Cleanup(k.Close)
	at, err := url.Parse(k.URL)
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(at.Host)
	number, _ := strconv.Atoi(port)
	n, err := api.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"zone": "a"}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: host}}
	n.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(number) //nolint:gosec // a port
	if _, err := api.CoreV1().Nodes().UpdateStatus(t.Context(), n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		p.Namespace, p.Spec.NodeName = "default", "n1"
		made, err := api.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		made.Status.Phase = corev1.PodRunning
		if made, err = api.CoreV1().Pods("default").UpdateStatus(t.Context(), made, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		k.pods = append(k.pods, made)
	}
	return k
}

func pod(name string, containers ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}}}
	for _, c := range containers {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c, Image: "i"})
	}
	return p
}

func start(t *testing.T) (*kajitest.Cluster, kubernetes.Interface, metricsclient.Interface) {
	cluster := kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) { c.Kinds = append(c.Kinds, metrics.Kinds()...) }))
	return cluster, kubernetes.NewForConfigOrDie(cluster.RESTConfig()), metricsclient.NewForConfigOrDie(cluster.RESTConfig())
}

// The first question is answered with rates already, and further ones within
// the resolution ask no kubelet.
func TestUse(t *testing.T) {
	_, api, m := start(t)
	k := node(t, api, pod("web", "b", "a"), pod("other", "c"))
	nodes, err := m.MetricsV1beta1().NodeMetricses().List(t.Context(), metav1.ListOptions{LabelSelector: "zone=a"})
	if err != nil || len(nodes.Items) != 1 {
		t.Fatalf("nodes: %v, %v", nodes, err)
	}
	n := nodes.Items[0]
	if n.Name != "n1" || n.Labels["zone"] != "a" || n.Window.Duration < time.Second || n.Timestamp.IsZero() || n.CreationTimestamp.IsZero() {
		t.Errorf("node: %+v", n)
	}
	near(t, "node", n.Usage, 1000)
	list, err := m.MetricsV1beta1().PodMetricses("").List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil || len(list.Items) != 1 || len(list.Items[0].Containers) != 2 {
		t.Fatalf("pods: %v, %v", list, err)
	}
	if p := list.Items[0]; p.Name != "web" || p.Containers[0].Name != "a" || p.Containers[1].Name != "b" {
		t.Errorf("pod: %+v", p)
	}
	near(t, "container", list.Items[0].Containers[0].Usage, 250)
	one, err := m.MetricsV1beta1().PodMetricses("default").Get(t.Context(), "other", metav1.GetOptions{})
	if err != nil || len(one.Containers) != 1 {
		t.Errorf("one pod: %v, %v", one, err)
	}
	if n := k.asked.Load(); n != 2 {
		t.Errorf("the kubelet was asked %d times, want 2: for two points", n)
	}
}

func near(t *testing.T, what string, used corev1.ResourceList, milli int64) {
	t.Helper()
	if got := used.Cpu().MilliValue(); got < milli*9/10 || got > milli*11/10 {
		t.Errorf("%s uses %dm, want about %dm", what, got, milli)
	}
	if got := used.Memory().String(); got != "64Mi" {
		t.Errorf("%s has %s, want 64Mi", what, got)
	}
}

func TestNothingKnown(t *testing.T) {
	_, api, m := start(t)
	k := node(t, api, pod("web", "a"))
	k.pods = nil
	for name, want := range map[string]string{
		"web":  `podmetrics.metrics.k8s.io "default/web" not found`,
		"gone": `pods "gone" not found`,
	} {
		_, err := m.MetricsV1beta1().PodMetricses("default").Get(t.Context(), name, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) || err.Error() != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	k.Close()
	list, err := m.MetricsV1beta1().PodMetricses("").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 0 {
		t.Errorf("with no kubelet there: %v, %v", list, err)
	}
}

// Discovery has the group, OpenAPI leaves it to those who have its types, and
// tables show what is used.
func TestShown(t *testing.T) {
	_, api, _ := start(t)
	node(t, api, pod("web", "a", "b"))
	get := func(path, accept string) string {
		body, err := api.CoreV1().RESTClient().Get().AbsPath(path).SetHeader("Accept", accept).DoRaw(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return string(body)
	}
	if got := get("/apis/metrics.k8s.io/v1beta1", "application/json"); !strings.Contains(got, `"kind":"PodMetrics"`) || !strings.Contains(got, `"verbs":["get","list"]`) {
		t.Error(got)
	}
	var rows metav1.Table
	if err := json.Unmarshal([]byte(get("/apis/metrics.k8s.io/v1beta1/pods", "application/json;as=Table;v=v1;g=meta.k8s.io")), &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows.Rows) != 1 || len(rows.Rows[0].Cells) != 4 || rows.Rows[0].Cells[0] != "web" || rows.Rows[0].Cells[2] != "128Mi" {
		t.Errorf("%+v", rows.Rows)
	}
	if strings.Contains(get("/openapi/v2", "application/json"), "metrics.k8s.io") {
		t.Error("OpenAPI names what it has no types of")
	}
}

// The real metrics server takes over by its APIService, and gives back by its
// deletion.
func TestTakenOver(t *testing.T) {
	cluster, api, m := start(t)
	services := client.Resource{GroupVersionResource: apiregistrationv1.SchemeGroupVersion.WithResource("apiservices")}
	const name = "v1beta1.metrics.k8s.io"
	wait := func(what string, ok func() bool) {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(time.Minute); !ok(); <-tick.C {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not in time", what)
			}
		}
	}
	local := func() bool {
		o, err := cluster.Client().Get(t.Context(), services, name, metav1.GetOptions{})
		return err == nil && o.(*apiregistrationv1.APIService).Spec.Service == nil
	}
	lists := func() bool {
		_, err := m.MetricsV1beta1().NodeMetricses().List(context.Background(), metav1.ListOptions{})
		return err == nil
	}
	node(t, api)
	wait("the local APIService", local)
	if !lists() {
		t.Fatal("the built-in one does not answer")
	}
	patch := []byte(`{"spec":{"service":{"name":"metrics-server","namespace":"kube-system"},"insecureSkipTLSVerify":true}}`)
	if _, err := cluster.Client().Patch(t.Context(), services, name, "application/merge-patch+json", patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	wait("the takeover", func() bool { return !lists() })
	if err := cluster.Client().Delete(t.Context(), services, name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wait("the way back", func() bool { return local() && lists() })
}
