// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"slices"
	"strings"
	"testing"

	configv1 "k8s.io/kube-scheduler/config/v1"

	"kaji/internal/scheduler/config"
)

const header = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"

func TestDefaultsAreValid(t *testing.T) {
	c := config.Default()
	if errs := config.Validate(c); len(errs) > 0 {
		t.Fatal(errs)
	}
	p := config.Profiles(c)
	if len(p) != 1 || p[0].Name != "default-scheduler" || p[0].Weight("TaintToleration") != 3 || p[0].Weight("NodeName") != 1 {
		t.Errorf("profiles: %+v", p)
	}
}

func TestPluginsAreMerged(t *testing.T) {
	c, err := config.Load([]byte(header + `
profiles:
- schedulerName: a
  plugins:
    multiPoint:
      disabled: [{name: ImageLocality}]
      enabled: [{name: NodeAffinity, weight: 9}]
    score:
      disabled: [{name: NodeResourcesFit}]
      enabled: [{name: TaintToleration, weight: 7}]
  pluginConfig:
  - name: NodeResourcesFit
    args:
      scoringStrategy: {type: MostAllocated}
- schedulerName: b
  percentageOfNodesToScore: 40
  plugins:
    filter:
      disabled: [{name: "*"}]
`))
	if err != nil {
		t.Fatal(err)
	}
	p := config.Profiles(c)
	everything := func(string) bool { return true }
	score := p[0].Enabled(config.Score, everything)
	if score[0] != "TaintToleration" {
		t.Errorf("score plugins are %v, want the reconfigured one first", score)
	}
	if slices.Contains(score, "NodeResourcesFit") || slices.Contains(score, "ImageLocality") {
		t.Errorf("score plugins %v hold disabled ones", score)
	}
	if filter := p[0].Enabled(config.Filter, everything); !slices.Contains(filter, "NodeResourcesFit") {
		t.Errorf("filter plugins are %v", filter)
	}
	if p[0].Weight("NodeAffinity") != 9 || p[0].Weight("TaintToleration") != 7 {
		t.Error("weights were not taken over")
	}
	if a := p[0].Args["NodeResourcesFit"].(*configv1.NodeResourcesFitArgs); a.ScoringStrategy.Type != configv1.MostAllocated || len(a.ScoringStrategy.Resources) != 2 {
		t.Errorf("args: %+v", a.ScoringStrategy)
	}
	if filter := p[1].Enabled(config.Filter, everything); len(filter) != 0 || p[1].PercentageOfNodesToScore != 40 {
		t.Errorf("profile b: %v, %d", filter, p[1].PercentageOfNodesToScore)
	}
}

func TestBadFilesAreRefusedWithThePath(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"unknown field", header + "nonsense: 1\n", `unknown field "nonsense"`},
		{"unknown version", "apiVersion: kubescheduler.config.k8s.io/v7\nkind: KubeSchedulerConfiguration\n", "no kind"},
		{"percentage", header + "percentageOfNodesToScore: 101\n", "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]"},
		{"profiles of one name", header + "profiles: [{schedulerName: a}, {schedulerName: a}]\n", `profiles[1].schedulerName: Duplicate value: "a"`},
		{"profiles without names", header + "profiles: [{schedulerName: \"\"}, {schedulerName: \"\"}]\n", "profiles[1].schedulerName: Duplicate value: "},
		{"profiles that sort differently", header + "profiles: [{schedulerName: a, plugins: {queueSort: {enabled: [{name: Other}]}}}, {schedulerName: b}]\n", `profiles[1].plugins.queueSort: Invalid value: {"Enabled":null,"Disabled":null}: must be the same for all profiles`},
		{"lease as short as the renewal", header + "leaderElection: {leaseDuration: 5s, renewDeadline: 5s}\n", "leaderElection.leaseDuration: Invalid value: \"5s\": must be greater than `RenewDeadline`"},
		{"negative lease", header + "leaderElection: {leaseDuration: -1s, renewDeadline: -2s}\n", `leaderElection.leaseDuration: Invalid value: "-1s": must be greater than zero`},
		{"profile without name", header + "profiles: [{schedulerName: a}, {}]\n", "profiles[1].schedulerName: Required value"},
		{"back-off", header + "podInitialBackoffSeconds: 20\n", "podMaxBackoffSeconds: Invalid value: 10: must be greater than or equal to PodInitialBackoffSeconds"},
		{"arguments", header + "profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}]}]\n",
			"profiles[0].pluginConfig[0].args.hardPodAffinityWeight"},
		{"extender weight", header + "extenders: [{urlPrefix: http://x, prioritizeVerb: p, weight: -1}]\n",
			"extenders[0].weight: Invalid value: -1: must have a positive weight applied to it"},
		{"extender without weight", header + "extenders: [{urlPrefix: http://x, prioritizeVerb: p}]\n",
			"extenders[0].weight: Invalid value: 0: must have a positive weight applied to it"},
		{"extender's resource", header + "extenders: [{urlPrefix: http://x, managedResources: [{name: foo}]}]\n",
			`extenders[0].managedResources[0].name: Invalid value: "foo": is an invalid extended resource name`},
		{"default constraints of the system's", header + "profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultConstraints: [{maxSkew: 1, topologyKey: a, whenUnsatisfiable: DoNotSchedule}]}}]}]\n",
			`profiles[0].pluginConfig[0].args.defaultingType: Invalid value: "System": when .defaultConstraints are not empty`},
		{"added affinity", header + "profiles: [{pluginConfig: [{name: NodeAffinity, args: {addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Foo}]}]}}}}]}]\n",
			`profiles[0].pluginConfig[0].args.addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator: Unsupported value: "Foo"`},
		{"binding timeout", header + "profiles: [{pluginConfig: [{name: DynamicResources, args: {bindingTimeout: 0s}}]}]\n",
			`profiles[0].pluginConfig[0].args.bindingTimeout: Invalid value: "0s": must be at least 1 second`},
		{"shape", header + "profiles: [{pluginConfig: [{name: VolumeBinding, args: {shape: [{utilization: 200, score: 0}]}}]}]\n",
			"profiles[0].pluginConfig[0].args.shape[0].utilization: Invalid value: 200: not in valid range [0, 100]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.Load([]byte(c.file))

			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(header))
	f.Add([]byte(header + "profiles: [{plugins: {score: {enabled: [{name: A, weight: 2}]}}}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Load(data)
		if err == nil {
			if errs := config.Validate(c); len(errs) > 0 {
				t.Errorf("loaded and not valid: %v", errs)
			}
		}
	})
}
