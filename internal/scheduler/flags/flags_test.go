// SPDX-License-Identifier: Apache-2.0

package flags_test

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"kaji/internal/scheduler/flags"
)

func parse(t *testing.T, args ...string) *flags.Options {
	t.Helper()
	o := flags.New()
	fs := pflag.NewFlagSet("kube-scheduler", pflag.ContinueOnError)
	o.AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestKubeadmCommandLine(t *testing.T) {
	o := parse(t, "--authentication-kubeconfig=/etc/kubernetes/scheduler.conf", "--authorization-kubeconfig=/etc/kubernetes/scheduler.conf",
		"--bind-address=127.0.0.1", "--kubeconfig=/etc/kubernetes/scheduler.conf", "--leader-elect=true", "-v=2")
	c, err := o.Configuration(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !*c.LeaderElection.LeaderElect || c.LeaderElection.ResourceName != "kube-scheduler" || c.ClientConnection.Kubeconfig != "/etc/kubernetes/scheduler.conf" {
		t.Errorf("configuration: %+v", c)
	}
	if o.Serving.SecurePort != 10259 || o.Serving.BindAddress.String() != "127.0.0.1" {
		t.Errorf("serving: %+v", o.Serving)
	}
}

func TestConfigFileReplacesFlags(t *testing.T) {
	o := parse(t, "--config=scheduler.yaml", "--leader-elect=true")
	c, err := o.Configuration([]byte("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nleaderElection:\n  leaderElect: false\n"))
	if err != nil {
		t.Fatal(err)
	}
	if *c.LeaderElection.LeaderElect {
		t.Error("the flag won over the file")
	}
	_, err = o.Configuration([]byte("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nparallelism: -1\n"))
	if err == nil || !strings.Contains(err.Error(), "parallelism: Invalid value: -1: should be an integer value greater than zero") {
		t.Errorf("error is %v", err)
	}
}
