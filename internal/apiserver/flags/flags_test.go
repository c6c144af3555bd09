// SPDX-License-Identifier: Apache-2.0

package flags

import (
	"testing"

	"github.com/spf13/pflag"

	"kaji/internal/apiserver/alloc"
)

func parse(t *testing.T, args ...string) *Options {
	t.Helper()
	fs := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	o := Add(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestReferenceCommandLine(t *testing.T) {
	o := parse(t, "--secure-port", "6443", "--token-auth-file", "tokens.csv", "--authorization-mode", "Node,RBAC", "--allow-privileged",
		"--service-cluster-ip-range", "10.96.0.0/16,fd00::/112", "--service-account-issuer", "https://kubernetes.default.svc",
		"--enable-admission-plugins", "NodeRestriction", "--service-node-port-range", "30000+100", "--etcd-servers=http://127.0.0.1:2379",
		"--watch-cache-sizes=pods#10", "--profiling=false")
	if errs := o.Validate(); len(errs) > 0 {
		t.Fatal(errs)
	}
	ranges, err := o.ServiceRanges()
	if err != nil || len(ranges) != 2 || ranges[0].String() != "10.96.0.0/16" {
		t.Errorf("ranges %v, %v", ranges, err)
	}
	if ports, err := o.NodePorts(); err != nil || ports != (alloc.PortRange{First: 30000, Last: 30100}) {
		t.Errorf("ports %v, %v", ports, err)
	}
	if got := o.Authorization.Modes; len(got) != 2 || got[0] != "Node" {
		t.Errorf("modes %v", got)
	}
	if !o.AllowPrivileged || o.Profiling {
		t.Errorf("privileged %v, profiling %v", o.AllowPrivileged, o.Profiling)
	}
}

func TestInvalid(t *testing.T) {
	for _, args := range [][]string{
		{"--secure-port=0"},
		{"--service-cluster-ip-range=10.0.0.0"},
		{"--service-cluster-ip-range=10.0.0.0/16,10.1.0.0/16"},
		{"--service-node-port-range=x"},
		{"--service-node-port-range=2-1"},
		{"--authorization-mode=Maybe"},
		{"--request-timeout=-1s"},
	} {
		if errs := parse(t, args...).Validate(); len(errs) != 1 {
			t.Errorf("%v: %v", args, errs)
		}
	}
}
