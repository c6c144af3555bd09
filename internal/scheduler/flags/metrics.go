// SPDX-License-Identifier: Apache-2.0

package flags

import (
	"strings"

	"github.com/blang/semver/v4"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation/field"
	metricsv1 "k8s.io/component-base/metrics/api/v1"
	"k8s.io/component-base/version"
)

// Metrics says which of a component's metrics are served, and with which values
// of labels.
type Metrics struct{ metricsv1.MetricsConfiguration }

// AddFlags defines the flags.
func (m *Metrics) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&m.ShowHiddenMetricsForVersion, "show-hidden-metrics-for-version", "", "The previous minor version, whose deprecated metrics are to be shown; none are hidden.")
	fs.StringSliceVar(&m.DisabledMetrics, "disabled-metrics", nil, "Full names of metrics that are not served.")
	fs.StringToStringVar(&m.AllowListMapping, "allow-metric-labels", nil,
		"The values that labels may have, by metric,label: METRIC,LABEL=VALUE,VALUE… Others become \"unexpected\".")
	fs.StringVar(&m.AllowListMappingManifest, "allow-metric-labels-manifest", "", "YAML file with what --allow-metric-labels says, a mapping.")
}

// Validate returns what is wrong with the flags, in upstream's words.
func (m *Metrics) Validate() error {
	release, _, _ := strings.Cut(version.Get().GitVersion, "+")
	now, err := semver.ParseTolerant(release)
	if err != nil {
		return err
	}
	return metricsv1.Validate(&m.MetricsConfiguration, now, field.NewPath("metrics")).ToAggregate()
}
