// SPDX-License-Identifier: Apache-2.0

package flags_test

import (
	"testing"
	"time"

	"github.com/spf13/pflag"

	"kaji/internal/kubelet/config"
	"kaji/internal/kubelet/flags"
)

// Flags that are given lie over a configuration file's fields, the others leave
// them alone.
func TestOverride(t *testing.T) {
	args := []string{"--config=/x", "--max-pods", "7", "--eviction-hard=memory.available<1Gi,nodefs.available<10%", "--node-labels=a=b",
		"--register-with-taints=k=v:NoSchedule,l:NoExecute", "--authentication-token-webhook=false", "--sync-frequency=3s",
		"--reserved-memory=0:memory=1Gi,hugepages-2Mi=2Mi", "--feature-gates=A=true", "-v=3"}
	o := flags.New()
	fs := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	o.AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	if o.ConfigFile != "/x" || o.NodeLabels["a"] != "b" || o.Verbosity != 3 || o.RootDir != "/var/lib/kubelet" {
		t.Errorf("options are %+v", o)
	}
	file := config.Default()
	file.MaxPods, file.PodsPerCore, file.EvictionHard = 50, 9, map[string]string{"imagefs.available": "1%"}
	*file.Authentication.Webhook.Enabled = true
	if err := o.Override(args, file); err != nil {
		t.Fatal(err)
	}
	c := o.Configuration
	if c != file || c.MaxPods != 7 || c.PodsPerCore != 9 || *c.Authentication.Webhook.Enabled || c.SyncFrequency.Duration != 3*time.Second {
		t.Errorf("configuration is %+v", c)
	}
	if len(c.EvictionHard) != 2 || c.EvictionHard["memory.available"] != "1Gi" {
		t.Errorf("thresholds are %v", c.EvictionHard)
	}
	if len(c.RegisterWithTaints) != 2 || c.RegisterWithTaints[0].ToString() != "k=v:NoSchedule" || c.RegisterWithTaints[1].ToString() != "l:NoExecute" {
		t.Errorf("taints are %v", c.RegisterWithTaints)
	}
	if len(c.ReservedMemory) != 1 || c.ReservedMemory[0].Limits.Memory().String() != "1Gi" || !c.FeatureGates["A"] {
		t.Errorf("memory is %v, gates are %v", c.ReservedMemory, c.FeatureGates)
	}
}

func TestBadFlags(t *testing.T) {
	for _, arg := range []string{"--register-with-taints=a=b", "--register-with-taints==b:NoSchedule", "--reserved-memory=x:memory=1", "--port=high", "--nonsense"} {
		fs := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
		flags.New().AddFlags(fs)
		if err := fs.Parse([]string{arg}); err == nil {
			t.Errorf("%s was taken", arg)
		}
	}
}
