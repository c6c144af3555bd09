// SPDX-License-Identifier: Apache-2.0

package flags

import "github.com/spf13/pflag"

const noEffect = "Accepted for upstream's sake; it has no effect here."

// addIgnored accepts what tunes parts of upstream's server that this one does
// not have.
func addIgnored(fs *pflag.FlagSet) {
	for _, name := range []string{
		"aggregator-reject-forwarding-redirects",
		"contention-profiling",
		"emulation-forward-compatible", "enable-logs-handler", "permit-address-sharing", "permit-port-sharing",
		"runtime-config-emulation-forward-compatible", "disable-http2-serving",
	} {
		fs.Bool(name, false, noEffect)
	}
	for _, name := range []string{
		"allow-metric-labels-manifest", "authorization-webhook-cache-size", "debug-socket-path",
		"egress-selector-config-file", "etcd-servers-overrides-file", "peer-advertise-ip", "peer-advertise-port",
		"peer-ca-file", "show-hidden-metrics-for-version", "tracing-config-file", "requestheader-config",
		"log-json-info-buffer-size", "log-text-info-buffer-size",
		"logging-format",
	} {
		fs.String(name, "", noEffect)
	}
	for _, name := range []string{
		"allow-metric-labels", "disabled-metrics", "etcd-servers-overrides", "watch-cache-sizes", "emulated-version", "min-compatibility-version",
	} {
		fs.StringSlice(name, nil, noEffect)
	}
	for _, name := range []string{
		"apiserver-count",
		"default-watch-cache-size", "kubernetes-service-node-port",
		"lease-reuse-duration-seconds", "max-connection-bytes-per-sec",
	} {
		fs.Int(name, 0, noEffect)
	}
	for _, name := range []string{
		"coordinated-leadership-lease-duration", "coordinated-leadership-renew-deadline",
		"coordinated-leadership-retry-period", "etcd-db-metric-poll-interval", "log-flush-frequency",
	} {
		fs.Duration(name, 0, noEffect)
	}
	for _, name := range []string{"log-json-split-stream", "log-text-split-stream"} {
		fs.Bool(name, false, noEffect)
	}
}
