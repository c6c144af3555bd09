// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	configv1beta1 "k8s.io/kubelet/config/v1beta1"

	"kaji/internal/kubelet/config"
	"kaji/internal/kubelet/evict"
)

const head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"

func file(name, body string) config.File { return config.File{Path: name, Data: []byte(body)} }

// Drop-in files lie over the file: objects merge, lists are replaced, what no
// file names has its default.
func TestMerge(t *testing.T) {
	main := file("main", head+"maxPods: 50\nevictionHard: {memory.available: 200Mi, nodefs.available: 5%}\nclusterDNS: [10.0.0.1, 10.0.0.2]\nauthentication: {anonymous: {enabled: true}}\n")
	c, lenient, err := config.Load(&main, []config.File{
		file("10.conf", head+"maxPods: 60\nevictionHard: {memory.available: 300Mi}\nauthentication: {webhook: {cacheTTL: 5s}}\n"),
		file("20.conf", head+"clusterDNS: [10.0.0.3]\nnodeStatusUpdateFrequency: 7s\n"),
	})
	if err != nil || lenient != nil {
		t.Fatal(err, lenient)
	}
	config.SetDefaults(c)
	if c.MaxPods != 60 || len(c.ClusterDNS) != 1 || c.EvictionHard["memory.available"] != "300Mi" || c.EvictionHard["nodefs.available"] != "5%" {
		t.Errorf("merged to %+v", c)
	}
	if !*c.Authentication.Anonymous.Enabled || c.Authentication.Webhook.CacheTTL.Duration != 5*time.Second || !*c.Authentication.Webhook.Enabled {
		t.Errorf("authentication is %+v", c.Authentication)
	}
	if c.NodeStatusReportFrequency.Duration != 7*time.Second || c.Port != 10250 || *c.HealthzPort != 10248 || c.SyncFrequency.Duration != time.Minute {
		t.Errorf("defaults are %v %v %v %v", c.NodeStatusReportFrequency, c.Port, *c.HealthzPort, c.SyncFrequency)
	}
	if err := config.Validate(c); err != nil {
		t.Error(err)
	}
}

// A field that does not exist is a warning in the file and an error in drop-in
// files.
func TestStrict(t *testing.T) {
	main := file("main", head+"maxPods: 50\nmaxPodz: 51\n")
	c, lenient, err := config.Load(&main, nil)
	if err != nil || c.MaxPods != 50 || lenient == nil || !strings.Contains(lenient.Error(), `unknown field "maxPodz"`) {
		t.Errorf("file: %v, %v", lenient, err)
	}
	if _, _, err := config.Load(nil, []config.File{main}); err == nil || !strings.Contains(err.Error(), `failed to load kubelet dropin file, path: main, error:`) {
		t.Errorf("drop-in: %v", err)
	}
	for body, want := range map[string]string{
		head + "maxPods: many\n": "failed to load kubelet config file, path: main, error: failed to decode: ",
		"kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v9\n":          "no kind \"KubeletConfiguration\" is registered for version \"kubelet.config.k8s.io/v9\"",
		"kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1beta1\n": "failed to cast object to KubeletConfiguration, unexpected type: ",
		"maxPods: 3\n": "Object 'Kind' is missing",
	} {
		main := file("main", body)
		if _, _, err := config.Load(&main, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", body, err, want)
		}
	}
}

func TestValidate(t *testing.T) {
	if err := config.Validate(config.Default()); err != nil {
		t.Fatalf("the defaults: %v", err)
	}
	shorter := config.Default()
	shorter.CPUCFSQuotaPeriod.Duration = 50 * time.Millisecond
	if err := config.Validate(shorter); err != nil {
		t.Errorf("a period of CPU quotas: %v", err)
	}
	for want, change := range map[string]func(*configv1beta1.KubeletConfiguration){
		"invalid configuration: port (--port) 70000 must be between 1 and 65535, inclusive": func(c *configv1beta1.KubeletConfiguration) { c.Port = 70000 },
		"invalid configuration: imageGCLowThresholdPercent (--image-gc-low-threshold) 80 must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) 70": func(c *configv1beta1.KubeletConfiguration) {
			*c.ImageGCHighThresholdPercent = 70
		},
		"invalid configuration: shutdownGracePeriodCriticalPods {10s} must be <= shutdownGracePeriod {0s}": func(c *configv1beta1.KubeletConfiguration) {
			c.ShutdownGracePeriodCriticalPods.Duration = 10 * time.Second
		},
		"invalid configuration: cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {2s} must be between 1ms and 1sec, inclusive": func(c *configv1beta1.KubeletConfiguration) { c.CPUCFSQuotaPeriod.Duration = 2 * time.Second },
		"invalid configuration: cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {50ms} requires feature gate CustomCPUCFSQuotaPeriod": func(c *configv1beta1.KubeletConfiguration) {
			c.CPUCFSQuotaPeriod.Duration, c.FeatureGates = 50*time.Millisecond, map[string]bool{"CustomCPUCFSQuotaPeriod": false}
		},
		`cannot reserve "gpu" resource`: func(c *configv1beta1.KubeletConfiguration) { c.KubeReserved = map[string]string{"gpu": "1"} },
		`invalid configuration: topologyManagerPolicy (--topology-manager-policy) "x" must be one of: ["none" "best-effort" "restricted" "single-numa-node"]`: func(c *configv1beta1.KubeletConfiguration) {
			c.TopologyManagerPolicy = "x"
		},
		`invalid configuration: the limit type "cpu" for NUMA node 0 is not supported, only [memory hugepages-<HugePageSize>] is accepted`: func(c *configv1beta1.KubeletConfiguration) {
			c.ReservedMemory = []configv1beta1.MemoryReservation{{Limits: corev1.ResourceList{"cpu": resource.MustParse("1")}}}
		},
		`invalid configuration: reserved memory may not be zero for NUMA node 1 and resource "memory"`: func(c *configv1beta1.KubeletConfiguration) {
			c.ReservedMemory = []configv1beta1.MemoryReservation{{NumaNode: 1, Limits: corev1.ResourceList{"memory": resource.MustParse("0")}}}
		},
		`invalid configuration: the reserved memory has a duplicate value for NUMA node 0 and resource "memory"`: func(c *configv1beta1.KubeletConfiguration) {
			one := configv1beta1.MemoryReservation{Limits: corev1.ResourceList{"memory": resource.MustParse("1Gi")}}
			c.ReservedMemory = []configv1beta1.MemoryReservation{one, one}
		},
		`invalid configuration: memorySwap.swapBehavior "x" must be one of: "", "LimitedSwap" or "NoSwap"`: func(c *configv1beta1.KubeletConfiguration) { c.MemorySwap.SwapBehavior = "x" },
	} {
		c := config.Default()
		change(c)
		if err := config.Validate(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestReserved(t *testing.T) {
	c := config.Default()
	c.SystemReserved, c.KubeReserved = map[string]string{"cpu": "200m"}, map[string]string{"cpu": "300m", "memory": "1Gi"}
	sum, err := config.Reserved(c)
	if err != nil || sum.Cpu().String() != "500m" || sum.Memory().String() != "1Gi" {
		t.Errorf("%v, %v", sum, err)
	}
}

// Hard thresholds replace upstream's defaults, or go before them.
func TestEviction(t *testing.T) {
	c := config.Default()
	if got, err := config.Eviction(c); err != nil || len(got) != len(evict.Defaults()) {
		t.Errorf("defaults: %v, %v", got, err)
	}
	c.EvictionHard = map[string]string{"memory.available": "1Gi"}
	if got, err := config.Eviction(c); err != nil || len(got) != 1 || got[0].Quantity != 1<<30 {
		t.Errorf("replaced: %v, %v", got, err)
	}
	*c.MergeDefaultEvictionSettings = true
	if got, err := config.Eviction(c); err != nil || len(got) != len(evict.Defaults()) {
		t.Errorf("merged: %v, %v", got, err)
	}
	c.EvictionSoft = map[string]string{"memory.available": "2Gi"}
	if _, err := config.Eviction(c); err == nil || !strings.Contains(err.Error(), "grace period must be specified for the soft eviction threshold memory.available") {
		t.Error(err)
	}
}
