// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"kaji/internal/app/controlplane"
	"kaji/internal/netfilter/nstest"
)

// Without IPv6 its ranges are refused before anything starts.
func TestIPv6Off(t *testing.T) {
	api := controlplane.AddFlags(pflag.NewFlagSet("", pflag.ContinueOnError))
	config := Config{API: api, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/56")}, Nodes: 1}
	machine := nstest.New(t)
	machine.Do(func() error { return config.Check(false) })
	machine.Do(func() error {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0o644); err != nil {
			return err
		}
		err := config.Check(false)
		if err == nil || !strings.Contains(err.Error(), "--cluster-cidr (fd00:10:244::/56): IPv6 is switched off on this machine") {
			t.Errorf("with IPv6 off: %v", err)
		}
		return nil
	})
}

// Ranges that cannot work together are refused by the names of their flags.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		pods, services, nodes string
		count                 int
		want                  string
	}{
		{"10.244.0.0/16", "10.96.0.0/16", "100.127.0.0/24", 1, ""},
		{"10.96.0.0/12", "10.96.0.0/16", "100.127.0.0/24", 1, "--cluster-cidr (10.96.0.0/12) and --service-cluster-ip-range (10.96.0.0/16) overlap"},
		{"100.127.0.0/16", "10.96.0.0/16", "100.127.0.0/24", 1, ""},
		{"100.127.0.0/16", "10.96.0.0/16", "100.127.0.0/24", 2, "--cluster-cidr (100.127.0.0/16) and --node-network (100.127.0.0/24) overlap"},
		{"10.244.0.0/16", "10.96.0.0/29", "100.127.0.0/24", 1, "--service-cluster-ip-range (10.96.0.0/29) has 8 addresses"},
		{"10.244.0.0/16", "10.96.0.0/28", "100.127.0.0/24", 1, ""},
		{"fd00:10:244::/56", "fd00:10:96::/112", "100.127.0.0/24", 1, ""},
		{"fd00:10:244::/56", "fd00:10:96::/112", "100.127.0.0/24", 2, "put an IPv4 range first, or run one node"},
	} {
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		api := controlplane.AddFlags(fs)
		if err := fs.Parse([]string{"--service-cluster-ip-range=" + c.services}); err != nil {
			t.Fatal(err)
		}
		config := Config{API: api, PodCIDRs: []netip.Prefix{netip.MustParsePrefix(c.pods)}, Nodes: c.count, NodeNetwork: netip.MustParsePrefix(c.nodes)}
		err := config.Check(false)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
