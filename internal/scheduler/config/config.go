// SPDX-License-Identifier: Apache-2.0

// Package config reads KubeSchedulerConfiguration v1 files: it fills absent
// fields as upstream does, refuses what is not valid with the path of the
// field, and settles which plugins each profile calls at which point. It
// knows plugins by name only and touches no files.
package config

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"k8s.io/utils/ptr"
)

// DefaultSchedulerName is the profile of pods that name no scheduler.
const DefaultSchedulerName = "default-scheduler"

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(configv1.AddToScheme(s))
	return s
}

// Default returns the configuration of a scheduler that was given none.
func Default() *configv1.KubeSchedulerConfiguration {
	c := &configv1.KubeSchedulerConfiguration{}
	SetDefaults(c)
	return c
}

// Load reads a configuration file, YAML or JSON, fills it up and validates it.
func Load(data []byte) (*configv1.KubeSchedulerConfiguration, error) {
	decoder := serializer.NewCodecFactory(newScheme(), serializer.EnableStrict).UniversalDeserializer()
	obj, gvk, err := decoder.Decode(data, nil, nil)
	if err != nil {
		return nil, err
	}
	c, ok := obj.(*configv1.KubeSchedulerConfiguration)
	if !ok {
		return nil, fmt.Errorf("couldn't decode as KubeSchedulerConfiguration, got %s", gvk)
	}
	if err := c.DecodeNestedObjects(decoder); err != nil {
		return nil, err
	}
	SetDefaults(c)
	if errs := Validate(c); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	return c, nil
}

func fill[T any](field **T, v T) {
	if *field == nil {
		*field = ptr.To(v)
	}
}

func fillValue[T comparable](field *T, v T) {
	var zero T
	if *field == zero {
		*field = v
	}
}

// SetDefaults fills absent fields with upstream's defaults.
func SetDefaults(c *configv1.KubeSchedulerConfiguration) {
	fill(&c.Parallelism, 16)
	fill(&c.PercentageOfNodesToScore, 0)
	fill(&c.PodInitialBackoffSeconds, 1)
	fill(&c.PodMaxBackoffSeconds, 10)
	fill(&c.EnableProfiling, true)
	fill(&c.EnableContentionProfiling, true)

	le := &c.LeaderElection
	fill(&le.LeaderElect, true)
	fillValue(&le.LeaseDuration.Duration, 15*time.Second)
	fillValue(&le.RenewDeadline.Duration, 10*time.Second)
	fillValue(&le.RetryPeriod.Duration, 2*time.Second)
	fillValue(&le.ResourceLock, "leases")
	fillValue(&le.ResourceNamespace, metav1.NamespaceSystem)
	fillValue(&le.ResourceName, "kube-scheduler")

	cc := &c.ClientConnection
	fillValue(&cc.ContentType, "application/vnd.kubernetes.protobuf")
	fillValue(&cc.QPS, 50)
	fillValue(&cc.Burst, 100)

	if len(c.Profiles) == 0 {
		c.Profiles = []configv1.KubeSchedulerProfile{{}}
	}
	if len(c.Profiles) == 1 {
		fill(&c.Profiles[0].SchedulerName, DefaultSchedulerName)
	}
	for i := range c.Profiles {
		defaultProfile(&c.Profiles[i])
	}
	for i := range c.Extenders {
		e := &c.Extenders[i]
		fillValue(&e.HTTPTimeout.Duration, 5*time.Second)
	}
}

func defaultProfile(p *configv1.KubeSchedulerProfile) {
	p.Plugins = merge(DefaultPlugins(), p.Plugins)
	given := map[string]bool{}
	for i := range p.PluginConfig {
		given[p.PluginConfig[i].Name] = true
		defaultArgs(p.PluginConfig[i].Args.Object)
	}
	for _, d := range []struct {
		name string
		args runtime.Object
	}{
		{"DefaultPreemption", &configv1.DefaultPreemptionArgs{}},
		{"DynamicResources", &configv1.DynamicResourcesArgs{}},
		{"InterPodAffinity", &configv1.InterPodAffinityArgs{}},
		{"NodeAffinity", &configv1.NodeAffinityArgs{}},
		{"NodeResourcesBalancedAllocation", &configv1.NodeResourcesBalancedAllocationArgs{}},
		{"NodeResourcesFit", &configv1.NodeResourcesFitArgs{}},
		{"PodTopologySpread", &configv1.PodTopologySpreadArgs{}},
		{"VolumeBinding", &configv1.VolumeBindingArgs{}},
	} {
		if !given[d.name] {
			defaultArgs(d.args)
			p.PluginConfig = append(p.PluginConfig, configv1.PluginConfig{Name: d.name, Args: runtime.RawExtension{Object: d.args}})
		}
	}
}

func defaultArgs(obj runtime.Object) {
	resources := []configv1.ResourceSpec{{Name: "cpu", Weight: 1}, {Name: "memory", Weight: 1}}
	weigh := func(list []configv1.ResourceSpec) {
		for i := range list {
			fillValue(&list[i].Weight, 1)
		}
	}
	switch a := obj.(type) {
	case *configv1.DefaultPreemptionArgs:
		fill(&a.MinCandidateNodesPercentage, 10)
		fill(&a.MinCandidateNodesAbsolute, 100)
	case *configv1.DynamicResourcesArgs:
		fill(&a.FilterTimeout, metav1.Duration{Duration: configv1.DynamicResourcesFilterTimeoutDefault})
		fill(&a.BindingTimeout, metav1.Duration{Duration: configv1.DynamicResourcesBindingTimeoutDefault})
	case *configv1.InterPodAffinityArgs:
		fill(&a.HardPodAffinityWeight, 1)
	case *configv1.NodeResourcesBalancedAllocationArgs:
		if len(a.Resources) == 0 {
			a.Resources = resources
		}
		weigh(a.Resources)
	case *configv1.NodeResourcesFitArgs:
		if a.ScoringStrategy == nil {
			a.ScoringStrategy = &configv1.ScoringStrategy{Type: configv1.LeastAllocated, Resources: resources}
		}
		if len(a.ScoringStrategy.Resources) == 0 {
			a.ScoringStrategy.Resources = resources
		}
		weigh(a.ScoringStrategy.Resources)
	case *configv1.PodTopologySpreadArgs:
		if a.DefaultingType == "" {
			a.DefaultingType = configv1.SystemDefaulting
		}
	case *configv1.VolumeBindingArgs:
		fill(&a.BindTimeoutSeconds, 600)
		if len(a.Shape) == 0 {
			a.Shape = []configv1.UtilizationShapePoint{{Utilization: 0, Score: 0}, {Utilization: 100, Score: 10}}
		}
	}
}

// Profiles settles the profiles of a configuration that has its defaults.
func Profiles(c *configv1.KubeSchedulerConfiguration) []Profile {
	out := make([]Profile, 0, len(c.Profiles))
	for i := range c.Profiles {
		in := &c.Profiles[i]
		p := Profile{
			Name: ptr.Deref(in.SchedulerName, ""), Plugins: in.Plugins, Args: map[string]runtime.Object{},
			PercentageOfNodesToScore: ptr.Deref(c.PercentageOfNodesToScore, 0),
		}
		if in.PercentageOfNodesToScore != nil {
			p.PercentageOfNodesToScore = *in.PercentageOfNodesToScore
		}
		for j := range in.PluginConfig {
			p.Args[in.PluginConfig[j].Name] = in.PluginConfig[j].Args.Object
		}
		out = append(out, p)
	}
	return out
}
