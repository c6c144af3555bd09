// SPDX-License-Identifier: Apache-2.0

package flags

import (
	"io"
	"testing"

	"github.com/spf13/pflag"
)

func parse(args ...string) (*Options, error) {
	o := New()
	fs := pflag.NewFlagSet("kube-proxy", pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	o.AddFlags(fs)
	err := fs.Parse(args)
	o.Complete()
	return o, err
}

// An address without a port has the usual one, or that of the older flag.
func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		args            []string
		health, metrics string
	}{
		{nil, "0.0.0.0:10256", "127.0.0.1:10249"},
		{[]string{"--healthz-bind-address=::", "--metrics-bind-address=0.0.0.0"}, "[::]:10256", "0.0.0.0:10249"},
		{[]string{"--metrics-bind-address=0.0.0.0", "--metrics-port=9000", "--healthz-port=0"}, "", "0.0.0.0:9000"},
		{[]string{"--healthz-bind-address=", "--metrics-bind-address=192.0.2.1:80"}, "", "192.0.2.1:80"},
	} {
		o, err := parse(c.args...)
		if err != nil || o.Configuration.HealthzBindAddress != c.health || o.Configuration.MetricsBindAddress != c.metrics {
			t.Errorf("%v: health at %q, metrics at %q, %v; want %q and %q", c.args, o.Configuration.HealthzBindAddress, o.Configuration.MetricsBindAddress, err, c.health, c.metrics)
		}
	}
}

// What is no value is refused as kube-proxy refuses it.
func TestRefused(t *testing.T) {
	for arg, want := range map[string]string{
		"--bind-address=xx":                  `invalid argument "xx" for "--bind-address" flag: "xx" is not a valid IP address`,
		"--healthz-bind-address=foo":         `invalid argument "foo" for "--healthz-bind-address" flag: "foo" is not in a valid format (ip or ip:port): address foo: missing port in address`,
		"--metrics-bind-address=:70000":      `invalid argument ":70000" for "--metrics-bind-address" flag: "" is not a valid IP address`,
		"--metrics-bind-address=1.2.3.4:foo": `invalid argument "1.2.3.4:foo" for "--metrics-bind-address" flag: "foo" is not a valid number`,
		"--v=x":                              `invalid argument "x" for "-v, --v" flag: strconv.ParseUint: parsing "x": invalid syntax`,
		"--feature-gates=foo":                `invalid argument "foo" for "--feature-gates" flag: malformed pair, expect string=bool`,
	} {
		if _, err := parse(arg); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", arg, err, want)
		}
	}
}
