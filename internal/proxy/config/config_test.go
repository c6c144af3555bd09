// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	configv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"

	"kaji/internal/proxy/config"
)

const head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"

func TestLoad(t *testing.T) {
	c, lenient, err := config.Load([]byte(head + "mode: nftables\nclusterCIDR: 10.244.0.1/16,fd00::/48\nbindAddress: \"::\"\nmetricsBindAddress: 10.0.0.1\nnonsense: 1\n"))
	if err != nil || lenient == nil || !strings.Contains(lenient.Error(), `unknown field "nonsense"`) {
		t.Fatal(lenient, err)
	}
	if c.HealthzBindAddress != "[::]:10256" || c.MetricsBindAddress != "10.0.0.1:10249" || *c.Conntrack.Min != 128*1024 {
		t.Errorf("defaulted to %+v", c)
	}
	if errs := config.Validate(c); len(errs) > 0 {
		t.Error(errs)
	}
	cidrs, err := config.ClusterCIDRs(c)
	if err != nil || len(cidrs) != 2 || cidrs[0].String() != "10.244.0.0/16" {
		t.Errorf("ranges %v, %v", cidrs, err)
	}
	ports, err := config.NodePortAddresses(c, []netip.Addr{netip.MustParseAddr("192.0.2.1")})
	if err != nil || len(ports) != 1 || ports[0].String() != "192.0.2.1/32" {
		t.Errorf("node ports at %v, %v", ports, err)
	}
	c.NodePortAddresses = []string{"localhost", "192.0.2.9/24"}
	if ports, err := config.NodePortAddresses(c, nil); err != nil || fmt.Sprint(ports) != "[127.0.0.0/8 ::1/128 192.0.2.0/24]" {
		t.Errorf("node ports at %v, %v", ports, err)
	}
	c.NodePortAddresses = append(c.NodePortAddresses, "all")
	if ports, err := config.NodePortAddresses(c, nil); err != nil || len(ports) != 0 {
		t.Errorf("node ports at %v, %v", ports, err)
	}
	if _, _, err := config.Load([]byte("kind: Pod\napiVersion: v1\n")); err == nil {
		t.Error("a Pod was taken for a configuration")
	}
}

func TestValidate(t *testing.T) {
	if errs := config.Validate(config.Default()); len(errs) > 0 {
		t.Fatalf("the defaults: %v", errs)
	}
	for want, change := range map[string]func(*configv1alpha1.KubeProxyConfiguration){
		"KubeProxyConfiguration.Mode.ProxyMode: Invalid value": func(c *configv1alpha1.KubeProxyConfiguration) { c.Mode = "userspace" },
		"KubeProxyConfiguration.BindAddress: Invalid value":    func(c *configv1alpha1.KubeProxyConfiguration) { c.BindAddress = "x" },
		`DetectLocalConfiguration.ClusterCIDRs: Invalid value: ["10.0.0.0/8","10.1.0.0/16"]: must be a either a single CIDR`: func(c *configv1alpha1.KubeProxyConfiguration) {
			c.ClusterCIDR = "10.0.0.0/8,10.1.0.0/16"
		},
		`DetectLocalConfiguration.ClusterCIDRs[1]: Invalid value: "x": must be a valid CIDR block`:     func(c *configv1alpha1.KubeProxyConfiguration) { c.ClusterCIDR = "10.0.0.0/8,x" },
		`DetectLocalConfiguration.InterfaceName: Invalid value: "": must not be empty`:                 func(c *configv1alpha1.KubeProxyConfiguration) { c.DetectLocalMode = "BridgeInterface" },
		`DetectLocalConfiguration.InterfacePrefix: Invalid value: "": must not be empty`:               func(c *configv1alpha1.KubeProxyConfiguration) { c.DetectLocalMode = "InterfaceNamePrefix" },
		"KubeProxyLinuxConfiguration.OOMScoreAdj: Invalid value: -3000: must be within the range":      func(c *configv1alpha1.KubeProxyConfiguration) { *c.OOMScoreAdj = -3000 },
		`KubeProxyConfiguration.SyncPeriod: Invalid value: "40s": must be greater than or equal to Ku`: func(c *configv1alpha1.KubeProxyConfiguration) { c.IPTables.MinSyncPeriod.Duration = 40 * time.Second },
		`showHiddenMetricsForVersion: Invalid value: "1.0": must be omitted or have the value '1.36'`:  func(c *configv1alpha1.KubeProxyConfiguration) { c.ShowHiddenMetricsForVersion = "1.0" },
		`MetricsBindAddress: Invalid value: "0": must be a valid port`:                                 func(c *configv1alpha1.KubeProxyConfiguration) { c.MetricsBindAddress = "[::1]:0" },
		"KubeProxyConfiguration.DetectLocalMode: Unsupported value":                                    func(c *configv1alpha1.KubeProxyConfiguration) { c.DetectLocalMode = "x" },
		"KubeProxyConntrackConfiguration.MaxPerCore: Invalid value":                                    func(c *configv1alpha1.KubeProxyConfiguration) { *c.Conntrack.MaxPerCore = -1 },
		"KubeProxyConfiguration.HealthzBindAddress: Invalid value":                                     func(c *configv1alpha1.KubeProxyConfiguration) { c.HealthzBindAddress = "host" },
		"KubeProxyConfiguration.NodePortAddresses[0]: Invalid value":                                   func(c *configv1alpha1.KubeProxyConfiguration) { c.NodePortAddresses = []string{"y"} },
	} {
		c := config.Default()
		change(c)
		if errs := config.Validate(c); len(errs) != 1 || !strings.Contains(errs[0].Error(), want) {
			t.Errorf("got %v, want %s", errs, want)
		}
	}
}
