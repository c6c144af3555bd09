// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"kaji/internal/app/controlplane"
)

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
