// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"

	"kaji/internal/controller"
	"kaji/internal/controller/controllertest"
	"kaji/internal/controller/meter"
)

// TestCounted plays scenarios and looks at what upstream's metrics say of them.
func TestCounted(t *testing.T) {
	for name, want := range map[string]string{
		"endpoints": `
endpoint_slice_controller_changes{operation="create"} 1
endpoint_slice_controller_desired_endpoint_slices 1
endpoint_slice_controller_endpoints_desired 1
endpoint_slice_controller_num_endpoint_slices 1
endpoint_slice_mirroring_controller_changes{operation="create"} 1
endpoint_slice_mirroring_controller_changes{operation="delete"} 1
endpoint_slice_mirroring_controller_changes{operation="update"} 1
endpoint_slice_mirroring_controller_endpoints_desired 0
endpoint_slice_mirroring_controller_num_endpoint_slices 0`,
		"nodes": `
node_ipam_controller_cidrset_cidrs_allocations_total{clusterCIDR="10.244.0.0/16"} 2
node_ipam_controller_cidrset_cidrs_releases_total{clusterCIDR="10.244.0.0/16"} 1
node_ipam_controller_cidrset_usage_cidrs{clusterCIDR="10.244.0.0/16"} 0.00390625
node_ipam_controller_cirdset_max_cidrs{clusterCIDR="10.244.0.0/16"} 256`,
		"indexed job": `
job_controller_job_finished_indexes_total{backoffLimit="perIndex",status="failed"} 2`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set, story := meter.New(), scenarios[name]
			config := story.config
			story.config = func(c *controller.Config) {
				if config != nil {
					config(c)
				}
				c.Metrics = set
			}
			story.play(t, &controllertest.Nth{})
			families, err := set.Registry().Gather()
			if err != nil {
				t.Fatal(err)
			}
			var metrics bytes.Buffer
			for _, f := range families {
				if _, err := expfmt.MetricFamilyToText(&metrics, f); err != nil {
					t.Fatal(err)
				}
			}
			for line := range strings.Lines(strings.TrimSpace(want) + "\n") {
				if !strings.Contains(metrics.String(), "\n"+line) {
					name, _, _ := strings.Cut(line, "{")
					name, _, _ = strings.Cut(name, " ")
					_, after, _ := strings.Cut(metrics.String(), "# TYPE "+name+" ")
					t.Errorf("no line %sbut %.200s", line, after)
				}
			}
		})
	}
}
