// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"k8s.io/utils/ptr"
)

// Validate judges a configuration that has its defaults.
func Validate(c *configv1.KubeSchedulerConfiguration) field.ErrorList {
	var errs field.ErrorList
	if v := ptr.Deref(c.Parallelism, 0); v <= 0 {
		errs = append(errs, field.Invalid(field.NewPath("parallelism"), v, "should be an integer value greater than zero"))
	}
	errs = append(errs, validateLeaderElection(c, field.NewPath("leaderElection"))...)
	if c.ClientConnection.Burst < 0 {
		errs = append(errs, field.Invalid(field.NewPath("clientConnection", "burst"), c.ClientConnection.Burst, "must be non-negative"))
	}
	profiles := field.NewPath("profiles")
	if len(c.Profiles) == 0 {
		errs = append(errs, field.Required(profiles, ""))
	}
	names := sets.New[string]()
	for i := range c.Profiles {
		p, path := &c.Profiles[i], profiles.Index(i)
		name := ptr.Deref(p.SchedulerName, "")
		if name == "" {
			errs = append(errs, field.Required(path.Child("schedulerName"), ""))
		}
		if names.Has(name) {
			errs = append(errs, field.Duplicate(path.Child("schedulerName"), name))
		}
		names.Insert(name)
		errs = append(errs, percentage(path.Child("percentageOfNodesToScore"), p.PercentageOfNodesToScore)...)
		errs = append(errs, validatePluginConfig(path, p)...)
	}
	errs = append(errs, validateQueueSort(profiles, c.Profiles)...)
	errs = append(errs, percentage(field.NewPath("percentageOfNodesToScore"), c.PercentageOfNodesToScore)...)
	initial, most := ptr.Deref(c.PodInitialBackoffSeconds, 0), ptr.Deref(c.PodMaxBackoffSeconds, 0)
	if initial <= 0 {
		errs = append(errs, field.Invalid(field.NewPath("podInitialBackoffSeconds"), initial, "must be greater than 0"))
	}
	if most < initial {
		errs = append(errs, field.Invalid(field.NewPath("podMaxBackoffSeconds"), most, "must be greater than or equal to PodInitialBackoffSeconds"))
	}
	return append(errs, validateExtenders(field.NewPath("extenders"), c.Extenders)...)
}

// validateQueueSort refuses profiles that sort differently: they share a queue.
func validateQueueSort(path *field.Path, profiles []configv1.KubeSchedulerProfile) field.ErrorList {
	type pluginSet struct{ Enabled, Disabled []configv1.Plugin } // as upstream spells it in the message
	var errs field.ErrorList
	for i := range profiles {
		first, own := profiles[0].Plugins.QueueSort, profiles[i].Plugins.QueueSort
		if !slices.Equal(first.Enabled, own.Enabled) || !slices.Equal(first.Disabled, own.Disabled) {
			errs = append(errs, field.Invalid(path.Index(i).Child("plugins", "queueSort"), pluginSet{own.Enabled, own.Disabled}, "must be the same for all profiles"))
		}
	}
	return errs
}

func percentage(path *field.Path, v *int32) field.ErrorList {
	if v != nil && (*v < 0 || *v > 100) {
		return field.ErrorList{field.Invalid(path, *v, "not in valid range [0-100]")}
	}
	return nil
}

func validateLeaderElection(c *configv1.KubeSchedulerConfiguration, path *field.Path) field.ErrorList {
	le := &c.LeaderElection
	if !ptr.Deref(le.LeaderElect, false) {
		return nil
	}
	var errs field.ErrorList
	for _, d := range []struct {
		name  string
		value metav1.Duration
	}{{"leaseDuration", le.LeaseDuration}, {"renewDeadline", le.RenewDeadline}, {"retryPeriod", le.RetryPeriod}} {
		if d.value.Duration <= 0 {
			errs = append(errs, field.Invalid(path.Child(d.name), d.value, "must be greater than zero"))
		}
	}
	if le.LeaseDuration.Duration <= le.RenewDeadline.Duration {
		errs = append(errs, field.Invalid(path.Child("leaseDuration"), le.RenewDeadline, "must be greater than `RenewDeadline`"))
	}
	if le.ResourceLock != "leases" {
		errs = append(errs, field.Invalid(path.Child("resourceLock"), le.ResourceLock, `resourceLock value must be "leases"`))
	}
	if le.ResourceNamespace == "" {
		errs = append(errs, field.Invalid(path.Child("resourceNamespace"), le.ResourceNamespace, "resourceNamespace is required"))
	}
	if le.ResourceName == "" {
		errs = append(errs, field.Invalid(path.Child("resourceName"), le.ResourceName, "resourceName is required"))
	}
	return errs
}

func validateExtenders(path *field.Path, list []configv1.Extender) field.ErrorList {
	var errs field.ErrorList
	binders := 0
	managed := sets.New[string]()
	for i := range list {
		e, at := &list[i], path.Index(i)
		if e.PrioritizeVerb != "" && e.Weight <= 0 {
			errs = append(errs, field.Invalid(at.Child("weight"), e.Weight, "must have a positive weight applied to it"))
		}
		if _, err := url.Parse(e.URLPrefix); err != nil {
			errs = append(errs, field.Invalid(at.Child("urlPrefix"), e.URLPrefix, err.Error()))
		}
		if e.BindVerb != "" {
			binders++
		}
		for j, r := range e.ManagedResources {
			name := at.Child("managedResources").Index(j).Child("name")
			errs = append(errs, validateExtended(name, r.Name)...)
			if managed.Has(r.Name) {
				errs = append(errs, field.Invalid(name, r.Name, "duplicate extender managed resource name"))
			}
			managed.Insert(r.Name)
		}
	}
	if binders > 1 {
		errs = append(errs, field.Invalid(path, fmt.Sprintf("found %d extenders implementing bind", binders), "only one extender can implement bind"))
	}
	return errs
}

// validateExtended refuses what is not the name of an extended resource.
func validateExtended(path *field.Path, name string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range validation.IsQualifiedName(name) {
		errs = append(errs, field.Invalid(path, name, msg))
	}
	extended := strings.Contains(name, "/") && !strings.Contains(name, corev1.ResourceDefaultNamespacePrefix) &&
		!strings.HasPrefix(name, corev1.DefaultResourceRequestsPrefix) &&
		len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+name)) == 0
	if len(errs) == 0 && !extended {
		errs = append(errs, field.Invalid(path, name, "is an invalid extended resource name"))
	}
	return errs
}

func validatePluginConfig(path *field.Path, p *configv1.KubeSchedulerProfile) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for i := range p.PluginConfig {
		name, at := p.PluginConfig[i].Name, path.Child("pluginConfig").Index(i)
		if seen.Has(name) {
			errs = append(errs, field.Duplicate(at, name))
			continue
		}
		seen.Insert(name)
		errs = append(errs, validateArgs(at.Child("args"), p.PluginConfig[i].Args.Object)...)
	}
	return errs
}

func validateArgs(path *field.Path, obj runtime.Object) field.ErrorList {
	var errs field.ErrorList
	bad := func(child string, v any, msg string) { errs = append(errs, field.Invalid(path.Child(child), v, msg)) }
	switch a := obj.(type) {
	case *configv1.DefaultPreemptionArgs:
		percent, absolute := ptr.Deref(a.MinCandidateNodesPercentage, 0), ptr.Deref(a.MinCandidateNodesAbsolute, 0)
		if percent < 0 || percent > 100 {
			bad("minCandidateNodesPercentage", percent, "not in valid range [0, 100]")
		}
		if absolute < 0 {
			bad("minCandidateNodesAbsolute", absolute, "not in valid range [0, inf)")
		}
		if percent == 0 && absolute == 0 {
			bad("minCandidateNodesPercentage", percent, "cannot be zero at the same time as minCandidateNodesAbsolute")
			bad("minCandidateNodesAbsolute", absolute, "cannot be zero at the same time as minCandidateNodesPercentage")
		}
	case *configv1.InterPodAffinityArgs:
		if w := ptr.Deref(a.HardPodAffinityWeight, 0); w < 0 || w > 100 {
			bad("hardPodAffinityWeight", w, "not in valid range [0, 100]")
		}
	case *configv1.PodTopologySpreadArgs:
		errs = append(errs, validateSpread(path, a)...)
	case *configv1.NodeResourcesBalancedAllocationArgs:
		errs = append(errs, validateResources(path.Child("resources"), a.Resources, 1)...)
	case *configv1.NodeResourcesFitArgs:
		errs = append(errs, validateFit(path, a)...)
	case *configv1.NodeAffinityArgs:
		errs = append(errs, validateAddedAffinity(path.Child("addedAffinity"), a.AddedAffinity)...)
	case *configv1.VolumeBindingArgs:
		if t := ptr.Deref(a.BindTimeoutSeconds, 0); t < 0 {
			bad("bindTimeoutSeconds", t, "invalid BindTimeoutSeconds, should not be a negative value")
		}
		errs = append(errs, validateShape(path.Child("shape"), a.Shape)...)
	case *configv1.DynamicResourcesArgs:
		if a.FilterTimeout != nil && a.FilterTimeout.Duration < 0 {
			bad("filterTimeout", a.FilterTimeout, "must be zero or positive")
		}
		if a.BindingTimeout != nil && a.BindingTimeout.Duration < time.Second {
			bad("bindingTimeout", a.BindingTimeout, "must be at least 1 second")
		}
	}
	return errs
}

// validateAddedAffinity returns the selectors' own errors: they name the fields.
func validateAddedAffinity(path *field.Path, a *corev1.NodeAffinity) field.ErrorList {
	if a == nil {
		return nil
	}
	var errs field.ErrorList
	collect := func(err error) {
		var list utilerrors.Aggregate
		var one *field.Error
		switch {
		case err == nil:
		case errors.As(err, &list):
			for _, e := range utilerrors.Flatten(list).Errors() {
				if errors.As(e, &one) {
					errs = append(errs, one)
				} else {
					errs = append(errs, field.Invalid(path, "", e.Error()))
				}
			}
		case errors.As(err, &one):
			errs = append(errs, one)
		default:
			errs = append(errs, field.Invalid(path, "", err.Error()))
		}
	}
	if req := a.RequiredDuringSchedulingIgnoredDuringExecution; req != nil {
		_, err := nodeaffinity.NewNodeSelector(req, field.WithPath(path.Child("requiredDuringSchedulingIgnoredDuringExecution")))
		collect(err)
	}
	_, err := nodeaffinity.NewPreferredSchedulingTerms(a.PreferredDuringSchedulingIgnoredDuringExecution,
		field.WithPath(path.Child("preferredDuringSchedulingIgnoredDuringExecution")))
	collect(err)
	return errs
}

func validateFit(path *field.Path, a *configv1.NodeResourcesFitArgs) field.ErrorList {
	var errs field.ErrorList
	for i, name := range a.IgnoredResources {
		for _, e := range metav1validation.ValidateLabelName(name, path.Child("ignoredResources").Index(i)) {
			errs = append(errs, e)
		}
	}
	for i, group := range a.IgnoredResourceGroups {
		at := path.Child("ignoredResourceGroups").Index(i)
		if strings.Contains(group, "/") {
			errs = append(errs, field.Invalid(at, group, "resource group name can't contain '/'"))
		}
		errs = append(errs, metav1validation.ValidateLabelName(group, at)...)
	}
	s := a.ScoringStrategy
	at := path.Child("scoringStrategy")
	if s == nil {
		return append(errs, field.Required(at, "ScoringStrategy field is required"))
	}
	switch s.Type {
	case configv1.LeastAllocated, configv1.MostAllocated, configv1.RequestedToCapacityRatio:
	default:
		errs = append(errs, field.NotSupported(at.Child("type"), s.Type,
			[]configv1.ScoringStrategyType{configv1.LeastAllocated, configv1.MostAllocated, configv1.RequestedToCapacityRatio}))
	}
	errs = append(errs, validateResources(at.Child("resources"), s.Resources, 100)...)
	ratio := at.Child("requestedToCapacityRatio")
	switch {
	case s.Type != configv1.RequestedToCapacityRatio:
		if s.RequestedToCapacityRatio != nil {
			errs = append(errs, field.Forbidden(ratio, "must be nil when type is not RequestedToCapacityRatio"))
		}
	case s.RequestedToCapacityRatio == nil:
		errs = append(errs, field.Required(ratio, "must be specified when type is RequestedToCapacityRatio"))
	default:
		errs = append(errs, validateShape(ratio.Child("shape"), s.RequestedToCapacityRatio.Shape)...)
	}
	return errs
}

func validateResources(path *field.Path, list []configv1.ResourceSpec, most int64) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for i, r := range list {
		if seen.Has(r.Name) {
			errs = append(errs, field.Duplicate(path.Index(i).Child("name"), r.Name))
		}
		seen.Insert(r.Name)
		switch {
		case most == 1 && r.Weight != 1:
			errs = append(errs, field.Invalid(path.Index(i).Child("weight"), r.Weight, "must be 1"))
		case r.Weight < 1 || r.Weight > 100:
			errs = append(errs, field.Invalid(path.Index(i).Child("weight"), r.Weight, fmt.Sprintf("resource weight of %s not in valid range [1, 100]", r.Name)))
		}
	}
	return errs
}

func validateShape(path *field.Path, shape []configv1.UtilizationShapePoint) field.ErrorList {
	if len(shape) == 0 {
		return field.ErrorList{field.Required(path, "at least one point must be specified")}
	}
	var errs field.ErrorList
	for i := 1; i < len(shape); i++ {
		if shape[i-1].Utilization >= shape[i].Utilization {
			errs = append(errs, field.Invalid(path.Index(i).Child("utilization"), shape[i].Utilization, "values must be sorted in increasing order"))
			break
		}
	}
	for i, p := range shape {
		if p.Utilization < 0 || p.Utilization > 100 {
			errs = append(errs, field.Invalid(path.Index(i).Child("utilization"), p.Utilization, "not in valid range [0, 100]"))
		}
		if p.Score < 0 || p.Score > 10 {
			errs = append(errs, field.Invalid(path.Index(i).Child("score"), p.Score, "not in valid range [0, 10]"))
		}
	}
	return errs
}

func validateSpread(path *field.Path, a *configv1.PodTopologySpreadArgs) field.ErrorList {
	var errs field.ErrorList
	switch a.DefaultingType {
	case configv1.SystemDefaulting, configv1.ListDefaulting:
	default:
		errs = append(errs, field.NotSupported(path.Child("defaultingType"), a.DefaultingType,
			[]configv1.PodTopologySpreadConstraintsDefaulting{configv1.SystemDefaulting, configv1.ListDefaulting}))
	}
	list := path.Child("defaultConstraints")
	if a.DefaultingType == configv1.SystemDefaulting && len(a.DefaultConstraints) > 0 {
		errs = append(errs, field.Invalid(path.Child("defaultingType"), a.DefaultingType, "when .defaultConstraints are not empty"))
	}
	type pair struct {
		key    string
		action corev1.UnsatisfiableConstraintAction
	}
	seen := map[pair]bool{}
	for i := range a.DefaultConstraints {
		c, at := &a.DefaultConstraints[i], list.Index(i)
		if c.MaxSkew <= 0 {
			errs = append(errs, field.Invalid(at.Child("maxSkew"), c.MaxSkew, "not in valid range (0, inf)"))
		}
		if c.TopologyKey == "" {
			errs = append(errs, field.Required(at.Child("topologyKey"), "can not be empty"))
		} else {
			errs = append(errs, metav1validation.ValidateLabelName(c.TopologyKey, at.Child("topologyKey"))...)
		}
		switch c.WhenUnsatisfiable {
		case corev1.DoNotSchedule, corev1.ScheduleAnyway:
		case "":
			errs = append(errs, field.Required(at.Child("whenUnsatisfiable"), "can not be empty"))
		default:
			errs = append(errs, field.NotSupported(at.Child("whenUnsatisfiable"), c.WhenUnsatisfiable,
				[]corev1.UnsatisfiableConstraintAction{corev1.DoNotSchedule, corev1.ScheduleAnyway}))
		}
		if c.LabelSelector != nil {
			errs = append(errs, field.Forbidden(at.Child("labelSelector"), "constraint must not define a selector, as they deduced for each pod"))
		}
		k := pair{c.TopologyKey, c.WhenUnsatisfiable}
		if seen[k] {
			errs = append(errs, field.Duplicate(at, fmt.Sprintf("{%v, %v}", k.key, k.action)))
		}
		seen[k] = true
	}
	return errs
}
