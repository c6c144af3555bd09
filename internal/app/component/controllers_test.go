// SPDX-License-Identifier: Apache-2.0

package component

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
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
	s := httptest.NewServer(controllerHandler(newProcessMetrics(), controllerConfigz(o.given), []string{"job-controller", "ttl-controller"}, true))
	defer s.Close()
	var got map[string]map[string]map[string]any
	if err := json.Unmarshal([]byte(get(t, s.URL+"/configz")), &got); err != nil {
		t.Fatal(err)
	}
	config := got["kubecontrollermanager.config.k8s.io"]
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
	c, err := parsed(t, "--concurrent-job-syncs=9", "--feature-gates=DRADeviceTaints=false,SomethingElse=true").config()
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Workers) != 1 || c.Workers["job"] != 9 {
		t.Errorf("workers %v", c.Workers)
	}
	if !slices.Contains(c.Controllers, "-device-taint-eviction-controller") {
		t.Errorf("controllers %v", c.Controllers)
	}
	if _, err := parsed(t, "--concurrent-job-syncs=0").config(); err == nil || err.Error() != "--concurrent-job-syncs must be greater than 0, but got 0" {
		t.Error(err)
	}
}
