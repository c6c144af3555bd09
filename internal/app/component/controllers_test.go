// SPDX-License-Identifier: Apache-2.0

package component

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
)

func parsed(t *testing.T, args ...string) *ControllerOptions {
	t.Helper()
	o := &ControllerOptions{}
	fs := pflag.NewFlagSet("kube-controller-manager", pflag.ContinueOnError)
	o.AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o
}

// TestConfigz: the configuration is shown in upstream's form.
func TestConfigz(t *testing.T) {
	o := parsed(t, "--concurrent-deployment-syncs=7", "--controllers=*,-ttl", "--node-monitor-grace-period=40s", "--cluster-cidr=10.0.0.0/8,fd00::/64")
	s := httptest.NewServer(controllerHandler(newProcessMetrics().controllers.Registry(), &process{name: "kube-controller-manager", configz: controllerConfigz(o.given), flags: o.given, profiling: true}, []string{"job-controller", "ttl-controller"}))
	defer s.Close()
	var got map[string]map[string]json.RawMessage
	if err := json.Unmarshal([]byte(get(t, s.URL+"/configz")), &got); err != nil {
		t.Fatal(err)
	}
	all := got["kubecontrollermanager.config.k8s.io"]
	if kind := string(all["kind"]); kind != `"KubeControllerManagerConfiguration"` {
		t.Errorf("kind %s", kind)
	}
	config := map[string]map[string]any{}
	for name, data := range all {
		var section map[string]any
		if json.Unmarshal(data, &section) == nil { // kind and apiVersion are none
			config[name] = section
		}
	}
	for _, want := range []struct {
		section, field string
		value          any
	}{
		{"DeploymentController", "ConcurrentDeploymentSyncs", 7.0}, {"DaemonSetController", "ConcurrentDaemonSetSyncs", 2.0},
		{"NodeLifecycleController", "NodeMonitorGracePeriod", "40s"}, {"KubeCloudShared", "ClusterCIDR", "10.0.0.0/8,fd00::/64"},
		{"GarbageCollectorController", "EnableGarbageCollector", true},
	} {
		if v := config[want.section][want.field]; v != want.value {
			t.Errorf("%s.%s is %v, want %v", want.section, want.field, v, want.value)
		}
	}
	for line := range strings.SplitSeq(strings.TrimSpace(configzFields), "\n") {
		if name := strings.Fields(line)[2]; o.given.Lookup(name) == nil {
			t.Errorf("there is no flag %s", name)
		}
	}
	if got := get(t, s.URL+"/healthz"); got != "ok" {
		t.Errorf("health: %q", got)
	}
	if got, want := get(t, s.URL+"/healthz?verbose"), "[+]job-controller ok\n[+]ttl-controller ok\nhealthz check passed\n"; got != want {
		t.Errorf("health in words: %q, want %q", got, want)
	}
	if metrics := get(t, s.URL+"/metrics"); !strings.Contains(metrics, "go_sched_latencies_seconds_bucket") || !strings.Contains(metrics, "taint_eviction_controller_pod_deletions_total 0") || !strings.Contains(metrics, "version_info{") {
		t.Error("metrics lack what is always there")
	}
}

// upstreamFlags are those of kube-controller-manager 1.37, as its /flagz has them.
const upstreamFlags = `
allocate-node-cidrs allow-metric-labels allow-metric-labels-manifest allow-untagged-cloud attach-detach-reconcile-sync-period
authentication-kubeconfig authentication-skip-lookup authentication-token-webhook-cache-ttl authentication-tolerate-lookup-failure
authorization-always-allow-paths authorization-kubeconfig authorization-webhook-cache-authorized-ttl authorization-webhook-cache-unauthorized-ttl
bind-address cert-dir cidr-allocator-type client-ca-file cloud-config cloud-provider cluster-cidr cluster-name cluster-signing-cert-file
cluster-signing-duration cluster-signing-key-file cluster-signing-kube-apiserver-client-cert-file cluster-signing-kube-apiserver-client-key-file
cluster-signing-kubelet-client-cert-file cluster-signing-kubelet-client-key-file cluster-signing-kubelet-serving-cert-file
cluster-signing-kubelet-serving-key-file cluster-signing-legacy-unknown-cert-file cluster-signing-legacy-unknown-key-file concurrent-cron-job-syncs
concurrent-daemonset-syncs concurrent-deployment-syncs concurrent-device-taint-eviction-syncs concurrent-disruption-syncs concurrent-endpoint-syncs
concurrent-ephemeralvolume-syncs concurrent-gc-syncs concurrent-horizontal-pod-autoscaler-syncs concurrent-job-syncs concurrent-namespace-syncs
concurrent-rc-syncs concurrent-replicaset-syncs concurrent-resource-quota-syncs concurrent-resourceclaim-syncs concurrent-service-endpoint-syncs
concurrent-serviceaccount-token-syncs concurrent-statefulset-syncs concurrent-ttl-after-finished-syncs
concurrent-validating-admission-policy-status-syncs configure-cloud-routes contention-profiling controller-shutdown-timeout controller-start-interval
controllers disable-attach-detach-reconcile-sync disable-force-detach-on-timeout disable-http2-serving disabled-metrics emulated-version
enable-dynamic-provisioning enable-garbage-collector enable-hostpath-provisioner enable-leader-migration endpoint-updates-batch-period
endpointslice-updates-batch-period external-cloud-volume-plugin feature-gates flex-volume-plugin-dir
horizontal-pod-autoscaler-cpu-initialization-period horizontal-pod-autoscaler-downscale-stabilization
horizontal-pod-autoscaler-initial-readiness-delay horizontal-pod-autoscaler-sync-period horizontal-pod-autoscaler-tolerance
http2-max-streams-per-connection kube-api-burst kube-api-content-type kube-api-qps kubeconfig large-cluster-size-threshold leader-elect
leader-elect-lease-duration leader-elect-renew-deadline leader-elect-resource-lock leader-elect-resource-name leader-elect-resource-namespace
leader-elect-retry-period leader-migration-config legacy-service-account-token-clean-up-period log-flush-frequency log-json-info-buffer-size
log-json-split-stream log-text-info-buffer-size log-text-split-stream logging-format master max-endpoints-per-slice min-compatibility-version
min-resync-period mirroring-concurrent-service-endpoint-syncs mirroring-endpointslice-updates-batch-period mirroring-max-endpoints-per-subset
namespace-sync-period node-cidr-mask-size node-cidr-mask-size-ipv4 node-cidr-mask-size-ipv6 node-eviction-rate node-monitor-grace-period
node-monitor-period node-startup-grace-period node-sync-period permit-address-sharing permit-port-sharing profiling pv-recycler-increment-timeout-nfs
pv-recycler-minimum-timeout-hostpath pv-recycler-minimum-timeout-nfs pv-recycler-pod-template-filepath-hostpath pv-recycler-pod-template-filepath-nfs
pv-recycler-timeout-increment-hostpath pvclaimbinder-sync-period requestheader-allowed-names requestheader-client-ca-file
requestheader-extra-headers-prefix requestheader-group-headers requestheader-uid-headers requestheader-username-headers resource-quota-sync-period
root-ca-file route-reconciliation-period secondary-node-eviction-rate secure-port service-account-private-key-file service-cluster-ip-range
show-hidden-metrics-for-version terminated-pod-gc-threshold tls-cert-file tls-cipher-suites tls-curve-preferences tls-min-version tls-private-key-file
tls-sni-cert-key unhealthy-zone-threshold use-service-account-credentials v vmodule
`

// Every flag of upstream's is taken.
func TestUpstreamsFlags(t *testing.T) {
	o := parsed(t)
	for _, name := range strings.Fields(upstreamFlags) {
		if o.given.Lookup(name) == nil {
			t.Errorf("there is no --%s", name)
		}
	}
}

// Flags and status are pages for people, and objects for those that ask for them.
func TestZpages(t *testing.T) {
	o := parsed(t, "--kube-api-qps=7")
	s := httptest.NewServer(controllerHandler(newProcessMetrics().controllers.Registry(), &process{name: "kube-controller-manager", flags: o.given}, nil))
	defer s.Close()
	if page := get(t, s.URL+"/flagz"); !strings.HasPrefix(page, "\nkube-controller-manager flagz\nWarning: ") || !strings.Contains(page, "\nkube-api-qps:7\n") {
		t.Errorf("flagz: %q", page)
	}
	if page := get(t, s.URL+"/statusz"); !strings.Contains(page, "\nPaths: /configz /flagz /healthz /metrics\n") {
		t.Errorf("statusz: %q", page)
	}
	ask := func(path, accept string) (int, string, map[string]any) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", accept)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		var body map[string]any
		if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, answer.Header.Get("Content-Type"), body
	}
	code, kind, flagz := ask("/flagz", "application/json;v=v1beta1;g=config.k8s.io;as=Flagz")
	if flags, _ := flagz["flags"].(map[string]any); code != http.StatusOK || kind != "application/json;g=config.k8s.io;v=v1beta1;as=Flagz" ||
		flagz["kind"] != "Flagz" || flagz["apiVersion"] != "config.k8s.io/v1beta1" || flags["kube-api-qps"] != "7" {
		t.Errorf("%d %s %v", code, kind, flagz)
	}
	if code, _, statusz := ask("/statusz", "application/json;v=v1alpha1;g=config.k8s.io;as=Statusz"); code != http.StatusOK || statusz["kind"] != "Statusz" || statusz["uptimeSeconds"] == nil {
		t.Errorf("%d %v", code, statusz)
	}
	if code, _, refused := ask("/statusz", "application/json"); code != http.StatusNotAcceptable || refused["reason"] != "NotAcceptable" {
		t.Errorf("%d %v", code, refused)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestControllerFlags: numbers of workers and features reach the controllers.
func TestControllerFlags(t *testing.T) {
	c, err := parsed(t, "--concurrent-job-syncs=9", "--feature-gates=DRADeviceTaints=false,AllAlpha=false").config()
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Workers) != 1 || c.Workers["job"] != 9 {
		t.Errorf("workers %v", c.Workers)
	}
	if !slices.Contains(c.Controllers, "-device-taint-eviction-controller") {
		t.Errorf("controllers %v", c.Controllers)
	}
	template := filepath.Join(t.TempDir(), "pod.yaml")
	if err := os.WriteFile(template, []byte("metadata: {name: x}\nspec: {volumes: [{name: v}], containers: [{name: c, image: scrub}]}"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err = parsed(t, "--endpoint-updates-batch-period=1s", "--endpointslice-updates-batch-period=2s", "--mirroring-endpointslice-updates-batch-period=3s", "--mirroring-max-endpoints-per-subset=4",
		"--enable-dynamic-provisioning=false", "--pv-recycler-minimum-timeout-nfs=5", "--pv-recycler-increment-timeout-nfs=6", "--pv-recycler-pod-template-filepath-hostpath="+template,
		"--controller-start-interval=7s", "--resource-quota-sync-period=8m", "--allocate-node-cidrs", "--cluster-cidr=10.0.0.0/8", "--service-cluster-ip-range=10.96.0.0/16,fd00::/112").config()
	if err != nil {
		t.Fatal(err)
	}
	if c.EndpointsBatch != time.Second || c.SliceBatch != 2*time.Second || c.MirrorBatch != 3*time.Second || c.MirroredPerSubset != 4 || !c.NoProvisioning ||
		c.NFSRecycling.Minimum != 5 || c.NFSRecycling.PerGi != 6 || c.HostPathRecycling.Template == nil || c.HostPathRecycling.Template.Spec.Containers[0].Image != "scrub" ||
		c.StartInterval != 7*time.Second || c.QuotaPeriod != 8*time.Minute || len(c.ServiceCIDRs) != 2 {
		t.Errorf("%+v", c)
	}
	for _, flag := range []string{"--mirroring-max-endpoints-per-subset=1001", "--pv-recycler-pod-template-filepath-nfs=/nowhere"} {
		if _, err := parsed(t, flag).config(); err == nil {
			t.Errorf("%s is taken", flag)
		}
	}
	if _, err := parsed(t, "--feature-gates=SomethingElse=true").config(); err == nil || err.Error() != "unrecognized feature gate: SomethingElse" {
		t.Error(err)
	}
	if _, err := parsed(t, "--concurrent-job-syncs=0").config(); err == nil || err.Error() != "--concurrent-job-syncs must be greater than 0, but got 0" {
		t.Error(err)
	}
}

// A gate that 1.37 does not have is refused before anything starts.
func TestUnknownGates(t *testing.T) {
	parsed := func(o interface{ AddFlags(*pflag.FlagSet) }) {
		fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
		o.AddFlags(fs)
		if err := fs.Parse([]string{"--feature-gates=Foo=true"}); err != nil {
			t.Fatal(err)
		}
	}
	controllers, cloud := &ControllerOptions{}, &CloudOptions{}
	parsed(controllers)
	parsed(cloud)
	for name, err := range map[string]error{
		"kube-controller-manager":  Controllers(t.Context(), controllers, slog.New(slog.DiscardHandler)),
		"cloud-controller-manager": Cloud(t.Context(), cloud, slog.New(slog.DiscardHandler)),
	} {
		if err == nil || !strings.Contains(err.Error(), "unrecognized feature gate: Foo") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The controllers have so long to end, and no longer.
func TestShutdownTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		release := make(chan struct{})
		p := &process{shutdown: 10 * time.Second}
		began := time.Now()
		if err := p.bounded(ctx, func(context.Context) error { <-release; return nil }); err == nil || time.Since(began) != 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		close(release)
		if err := p.bounded(ctx, func(context.Context) error { time.Sleep(9 * time.Second); return nil }); err != nil {
			t.Error(err)
		}
	})
}

// Requests to the API server are limited where that is asked for.
func TestRequestsAreLimited(t *testing.T) {
	for _, c := range []struct {
		args        []string
		contentType string
		limited     bool
	}{
		{nil, "", false},
		{[]string{"--kube-api-content-type=application/json"}, "application/json", false},
		{[]string{"--kube-api-qps=2", "--kube-api-burst=1"}, "", true},
	} {
		config, registry := &rest.Config{}, prometheus.NewRegistry()
		parsed(t, c.args...).API.apply(config, registry)
		if config.ContentType != c.contentType || (config.WrapTransport != nil) != c.limited {
			t.Errorf("%v: %+v", c.args, config)
		}
		if !c.limited {
			continue
		}
		asked := 0
		through := config.WrapTransport(answers(func(*http.Request) { asked++ }))
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		for range 5 {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://server/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if answer, err := through.RoundTrip(r); err == nil {
				answer.Body.Close()
			}
		}
		if families, err := registry.Gather(); asked != 1 || err != nil || len(families) != 1 || families[0].Metric[0].Histogram.GetSampleCount() != 1 {
			t.Errorf("%d requests went through; %v %v", asked, families, err)
		}
	}
}

// answers is a server that says yes.
type answers func(*http.Request)

func (f answers) RoundTrip(r *http.Request) (*http.Response, error) {
	f(r)
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}
