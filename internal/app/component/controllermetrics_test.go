// SPDX-License-Identifier: Apache-2.0

package component

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/kajitest"
)

// kubeconfig writes the access of a configuration to a file.
func kubeconfig(t *testing.T, c *rest.Config) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	config := clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: c.Host, CertificateAuthorityData: c.CAData, InsecureSkipTLSVerify: c.Insecure}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": {Token: c.BearerToken, ClientCertificateData: c.CertData, ClientKeyData: c.KeyData}},
		Contexts:       map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "x",
	}
	if err := clientcmd.WriteToFile(config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// managed runs a controller manager of its own until the test ends, and returns
// what reads its paths.
func managed(t *testing.T, c *kajitest.Cluster, args ...string) func(method, path string) string {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	o := parsed(t, append([]string{"--kubeconfig=" + kubeconfig(t, c.RESTConfig()), "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
		"--leader-elect=false", "--authorization-always-allow-paths=*"}, args...)...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Controllers(ctx, o, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}} //nolint:gosec // the component's certificate is self-made
	t.Cleanup(transport.CloseIdleConnections)
	web := &http.Client{Transport: transport}
	return func(method, path string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, fmt.Sprintf("https://127.0.0.1:%d%s", port, path), nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := web.Do(r)
		if err != nil {
			return "" // it does not listen yet
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
}

// until asks for a page until it has all lines, two minutes at most, and tells
// which it lacks then.
func until(t *testing.T, page func() string, lines ...string) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		text, lacks := "\n"+page(), ""
		for _, line := range lines {
			if !strings.Contains(text, "\n"+line) {
				lacks = line
			}
		}
		if lacks == "" {
			return
		}
		if time.Now().After(deadline) {
			name, _, _ := strings.Cut(lacks, "{")
			_, there, _ := strings.Cut(text, "\n# TYPE "+name)
			t.Fatalf("no line %q, but %.300s of %d bytes: %.300s", lacks, there, len(text), text)
		}
	}
}

// What a controller manager tells about itself, its informers and what there is,
// under upstream's names and labels.
func TestControllerMetrics(t *testing.T) {
	c := kajitest.Start(t)
	api := c.Client()
	one := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	create(t, client.For[*corev1.Namespace](api), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	create(t, client.For[*corev1.PersistentVolume](api), &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: corev1.PersistentVolumeSpec{
		Capacity: one, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: "fast",
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "csi.example.com", VolumeHandle: "h"}}}})
	create(t, client.For[*corev1.PersistentVolumeClaim](api), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "c"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: ptr.To("fast"), Resources: corev1.VolumeResourceRequirements{Requests: one}}})
	create(t, client.For[*corev1.PersistentVolumeClaim](api), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "slow"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: ptr.To("slow"), Resources: corev1.VolumeResourceRequirements{Requests: one}}})
	create(t, client.For[*storagev1.CSIDriver](api), &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "csi.example.com"}})
	create(t, client.For[*corev1.Node](api), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "m", Annotations: map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}}})
	create(t, client.For[*resourcev1.ResourceClaim](api), &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "c"}})
	create(t, client.For[*corev1.Pod](api), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p"}, Spec: corev1.PodSpec{NodeName: "m",
		Containers: []corev1.Container{{Name: "c", Image: "i"}},
		Volumes:    []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}}})
	create(t, client.For[*batchv1.Job](api), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "j"}, Spec: batchv1.JobSpec{ManagedBy: ptr.To("example.com/other"),
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}})
	read := managed(t, c, "--allocate-node-cidrs", "--cluster-cidr=10.0.0.0/16", "--disabled-metrics=workqueue_depth,workqueue_depth,retroactive_storageclass_total",
		`--allow-metric-labels="workqueue_adds_total,name=job,namespace"`)
	page := func() string { return read(http.MethodGet, "/metrics") }
	until(t, page,
		`informer_queued_items{group="",name="kube-controller-manager",resource="pods",version="v1"} 0`,
		`informer_processing_latency_seconds_count{group="batch",name="kube-controller-manager",resource="jobs",version="v1"} `,
		`informer_store_resource_version{group="",name="kube-controller-manager",resource="pods",version="v1"} `,
		`authentication_attempts{result="success"} `, `authentication_duration_seconds_count{result="success"} `, `authenticated_user_requests{username="other"} `,
		`authorization_attempts_total{result="allowed"} `, `authorization_duration_seconds_count{result="allowed"} `,
		`running_managed_controllers{manager="kube-controller-manager",name="nodeipam"} 1`,
		`job_controller_jobs_by_external_controller_total{controller_name="example.com/other"} 1`,
		`pv_collector_total_pv_count{plugin_name="kubernetes.io/csi:csi.example.com",volume_mode="Filesystem"} 1`,
		`pv_collector_bound_pv_count{storage_class="fast"} 1`, `pv_collector_bound_pvc_count{namespace="n",storage_class="fast",volume_attributes_class=""} 1`,
		`pv_collector_unbound_pvc_count{namespace="n",storage_class="slow",volume_attributes_class=""} 1`,
		`dynamic_resource_allocation_resource_claims{admin_access="false",allocated="false",source=""} 1`,
		`storage_count_attachable_volumes_in_use{node="m",volume_plugin="kubernetes.io/csi:csi.example.com"} 1`,
		`attachdetach_controller_total_volumes{plugin_name="kubernetes.io/csi:csi.example.com",state="desired_state_of_world"} 1`,
		`disabled_metrics_total 2`, `hidden_metrics_total 0`, `workqueue_adds_total{name="unexpected"} `, `workqueue_adds_total{name="job"} 0`)
	text := page()
	for _, unwanted := range []string{"workqueue_depth", "retroactive_storageclass_total", `workqueue_adds_total{name="deployment"`, "cardinality_enforcement_unexpected_categorizations_total 0"} {
		if strings.Contains(text, "\n"+unwanted) {
			t.Errorf("%s is served", unwanted)
		}
	}
	checks := func() string { return read(http.MethodGet, "/metrics/slis") }
	if health := read(http.MethodGet, "/healthz"); health != "ok" {
		t.Errorf("health: %q", health)
	}
	until(t, checks, `kubernetes_healthcheck{name="job-controller",type="healthz"} 1`, `kubernetes_healthchecks_total{name="job-controller",status="success",type="healthz"} 1`, `process_start_time_seconds `)
	if answer := read(http.MethodDelete, "/metrics/slis"); answer != "metrics reset\n" {
		t.Errorf("DELETE: %q", answer)
	}
	if text := checks(); strings.Contains(text, "job-controller") || strings.Contains(text, "process_start_time_seconds 0\n") {
		t.Errorf("after DELETE: %s", text)
	}
}

func create[T client.Object](t *testing.T, of client.Typed[T], object T) {
	t.Helper()
	if _, err := of.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

// What is wrong with the flags of metrics is told before anything starts.
func TestMetricFlags(t *testing.T) {
	for flag, want := range map[string]string{
		"--show-hidden-metrics-for-version=1.20": `metrics.showHiddenMetricsForVersion: Invalid value: "1.20": must be omitted or have the value '`,
		"--disabled-metrics=a-b":                 "must be fully qualified metric names matching",
		"--allow-metric-labels=a=b":              "must have keys with format `metricName,labelName`",
	} {
		o := parsed(t, flag)
		if err := o.Metrics.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}
