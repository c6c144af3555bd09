// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/spf13/pflag"
)

// TestDefaults: what a cluster has without a word said.
func TestDefaults(t *testing.T) {
	f, fs := newClusterFlags(), pflag.NewFlagSet("up", pflag.ContinueOnError)
	f.define(fs)
	if err := fs.Parse([]string{"--data-dir", t.TempDir(), "--load-balancer-pool", "192.0.2.8/30"}); err != nil {
		t.Fatal(err)
	}
	c, err := f.config(fs)
	if err != nil {
		t.Fatal(err)
	}
	if !c.LoadBalancer || len(c.LoadBalancerPools) != 1 || c.Nodes != 1 || c.Ingress.HTTPPort != 80 {
		t.Errorf("the cluster is %+v", c)
	}
	f.loadBalancerPools = []string{"192.0.2.8/30", "192.0.2.9"}
	if _, err := f.config(fs); err == nil {
		t.Error("overlapping pools were taken")
	}
}
