// SPDX-License-Identifier: Apache-2.0

package autoscaling

import (
	"errors"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/rule"
)

const (
	maxPeriodSeconds        = 1800
	maxStabilizationSeconds = 3600
)

// groupRule says what of a reference's apiVersion is judged.
type groupRule int

const (
	groupRequired groupRule = iota // a group must be named
	groupOptional                  // the core group may be left out
	groupAny                       // whatever was stored may stand
)

func validateAutoscaler(spec, old *autoscalingv2.HorizontalPodAutoscalerSpec) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	if n := spec.MinReplicas; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(path.Child("minReplicas"), *n, "must be greater than or equal to 0"))
	}
	where := path.Child("maxReplicas")
	if spec.MaxReplicas == 0 {
		errs = append(errs, field.Required(where, ""))
	} else if spec.MaxReplicas < 0 {
		errs = append(errs, field.Invalid(where, spec.MaxReplicas, "must be greater than or equal to 1"))
	}
	if n := spec.MinReplicas; n != nil && spec.MaxReplicas < *n {
		errs = append(errs, field.Invalid(where, spec.MaxReplicas, "must be greater than or equal to `minReplicas`"))
	}
	target, object := groupRequired, groupOptional
	switch ref := &spec.ScaleTargetRef; {
	case old != nil && old.ScaleTargetRef.APIVersion == ref.APIVersion && old.ScaleTargetRef.Kind == ref.Kind:
		target = groupAny
	case ref.Kind == "ReplicationController":
		target = groupOptional
	}
	if old != nil {
		for _, m := range old.Metrics {
			if m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil && checkAPIVersion(m.Object.DescribedObject.APIVersion, object) != nil {
				object = groupAny
				break
			}
		}
	}
	errs = append(errs, validateReference(&spec.ScaleTargetRef, path.Child("scaleTargetRef"), target)...)
	errs = append(errs, validateMetrics(spec, path.Child("metrics"), object)...)
	if b := spec.Behavior; b != nil {
		errs = append(errs, validateScaling(b.ScaleUp, path.Child("behavior", "scaleUp"))...)
		errs = append(errs, validateScaling(b.ScaleDown, path.Child("behavior", "scaleDown"))...)
	}
	return errs
}

func checkAPIVersion(version string, group groupRule) error {
	if group == groupAny {
		return nil
	}
	gv, err := schema.ParseGroupVersion(version)
	if err == nil && group == groupRequired && gv.Group == "" {
		err = errors.New("apiVersion must specify API group")
	}
	return err
}

func validateReference(ref *autoscalingv2.CrossVersionObjectReference, path *field.Path, group groupRule) field.ErrorList {
	errs := validateSegment(ref.Kind, path.Child("kind"), "")
	errs = append(errs, validateSegment(ref.Name, path.Child("name"), "")...)
	if err := checkAPIVersion(ref.APIVersion, group); err != nil {
		errs = append(errs, field.Invalid(path.Child("apiVersion"), ref.APIVersion, err.Error()))
	}
	return errs
}

// validateSegment requires a name that can stand in a URL's path; missing is
// said where it is empty.
func validateSegment(name string, path *field.Path, missing string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, missing)}
	}
	return rule.Messages(path, name, content.IsPathSegmentName(name))
}

func validateMetrics(spec *autoscalingv2.HorizontalPodAutoscalerSpec, path *field.Path, group groupRule) field.ErrorList {
	var errs field.ErrorList
	fromZero := false
	for i := range spec.Metrics {
		m := &spec.Metrics[i]
		errs = append(errs, validateMetric(m, path.Index(i), group)...)
		fromZero = fromZero || m.Type == autoscalingv2.ObjectMetricSourceType || m.Type == autoscalingv2.ExternalMetricSourceType
	}
	if n := spec.MinReplicas; n != nil && *n == 0 && !fromZero {
		errs = append(errs, field.Forbidden(path, "must specify at least one Object or External metric to support scaling to zero replicas"))
	}
	return errs
}

func validateMetric(m *autoscalingv2.MetricSpec, path *field.Path, group groupRule) field.ErrorList {
	var errs field.ErrorList
	types := []autoscalingv2.MetricSourceType{autoscalingv2.ContainerResourceMetricSourceType, autoscalingv2.ExternalMetricSourceType,
		autoscalingv2.ObjectMetricSourceType, autoscalingv2.PodsMetricSourceType, autoscalingv2.ResourceMetricSourceType}
	if m.Type == "" {
		errs = append(errs, field.Required(path.Child("type"), "must specify a metric source type"))
	}
	sources := []struct {
		name     string
		kind     autoscalingv2.MetricSourceType
		present  bool
		validate func(*field.Path) field.ErrorList
	}{
		{"object", autoscalingv2.ObjectMetricSourceType, m.Object != nil, func(p *field.Path) field.ErrorList { return validateObject(m.Object, p, group) }},
		{"external", autoscalingv2.ExternalMetricSourceType, m.External != nil, func(p *field.Path) field.ErrorList { return validateExternal(m.External, p) }},
		{"pods", autoscalingv2.PodsMetricSourceType, m.Pods != nil, func(p *field.Path) field.ErrorList { return validatePods(m.Pods, p) }},
		{"resource", autoscalingv2.ResourceMetricSourceType, m.Resource != nil, func(p *field.Path) field.ErrorList { return validateResource(m.Resource, p) }},
		{"containerResource", autoscalingv2.ContainerResourceMetricSourceType, m.ContainerResource != nil, func(p *field.Path) field.ErrorList { return validateContainerResource(m.ContainerResource, p) }},
	}
	known, present := false, 0
	for _, s := range sources {
		if s.present {
			if present++; present == 1 { // the others are too many, whatever they hold
				errs = append(errs, s.validate(path.Child(s.name))...)
			}
		}
		if s.kind == m.Type {
			known = true
			if !s.present {
				errs = append(errs, field.Required(path.Child(s.name), "must populate information for the given metric source"))
			}
		}
	}
	if !known {
		// Clients are told twice.
		errs = append(errs, field.NotSupported(path.Child("type"), m.Type, types), field.NotSupported(path.Child("type"), m.Type, types))
	}
	if present != 1 {
		for _, s := range sources {
			if s.present && s.kind != m.Type {
				errs = append(errs, field.Forbidden(path.Child(s.name), "must populate the given metric source only"))
			}
		}
	}
	return errs
}

func validateObject(source *autoscalingv2.ObjectMetricSource, path *field.Path, group groupRule) field.ErrorList {
	errs := validateReference(&source.DescribedObject, path.Child("describedObject"), group)
	errs = append(errs, validateIdentifier(&source.Metric, path)...)
	errs = append(errs, validateTarget(&source.Target, path.Child("target"))...)
	if source.Target.Value == nil && source.Target.AverageValue == nil {
		errs = append(errs, field.Required(path.Child("target", "averageValue"), "must set either a target value or averageValue"))
	}
	return errs
}

func validateExternal(source *autoscalingv2.ExternalMetricSource, path *field.Path) field.ErrorList {
	errs := validateIdentifier(&source.Metric, path)
	errs = append(errs, validateTarget(&source.Target, path.Child("target"))...)
	switch value, average := source.Target.Value != nil, source.Target.AverageValue != nil; {
	case !value && !average:
		errs = append(errs, field.Required(path.Child("target", "averageValue"), "must set either a target value for metric or a per-pod target"))
	case value && average:
		errs = append(errs, field.Forbidden(path.Child("target", "value"), "may not set both a target value for metric and a per-pod target"))
	}
	return errs
}

func validatePods(source *autoscalingv2.PodsMetricSource, path *field.Path) field.ErrorList {
	errs := validateIdentifier(&source.Metric, path)
	errs = append(errs, validateTarget(&source.Target, path.Child("target"))...)
	if source.Target.AverageValue == nil {
		errs = append(errs, field.Required(path.Child("target", "averageValue"), "must specify a positive target averageValue"))
	}
	return errs
}

func validateResource(source *autoscalingv2.ResourceMetricSource, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if source.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), "must specify a resource name"))
	}
	return append(errs, validateUtilization(&source.Target, path.Child("target"))...)
}

func validateContainerResource(source *autoscalingv2.ContainerResourceMetricSource, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if source.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), "must specify a resource name"))
	} else {
		errs = append(errs, rule.ContainerResourceName(source.Name, path.Child("name"))...)
	}
	if source.Container == "" {
		errs = append(errs, field.Required(path.Child("container"), "must specify a container"))
	} else {
		errs = append(errs, rule.Label(source.Container, path.Child("container"))...)
	}
	return append(errs, validateUtilization(&source.Target, path.Child("target"))...)
}

func validateUtilization(target *autoscalingv2.MetricTarget, path *field.Path) field.ErrorList {
	errs := validateTarget(target, path)
	switch share, value := target.AverageUtilization != nil, target.AverageValue != nil; {
	case !share && !value:
		errs = append(errs, field.Required(path.Child("averageUtilization"), "must set either a target raw value or a target utilization"))
	case share && value:
		errs = append(errs, field.Forbidden(path.Child("averageValue"), "may not set both a target raw value and a target utilization"))
	}
	return errs
}

func validateTarget(target *autoscalingv2.MetricTarget, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if target.Type == "" {
		errs = append(errs, field.Required(path.Child("type"), "must specify a metric target type"))
	}
	switch target.Type {
	case autoscalingv2.UtilizationMetricType, autoscalingv2.ValueMetricType, autoscalingv2.AverageValueMetricType:
	default:
		errs = append(errs, field.Invalid(path.Child("type"), target.Type, "must be either Utilization, Value, or AverageValue"))
	}
	if v := target.Value; v != nil && v.Sign() != 1 {
		errs = append(errs, field.Invalid(path.Child("value"), v, "must be positive"))
	}
	if v := target.AverageValue; v != nil && v.Sign() != 1 {
		errs = append(errs, field.Invalid(path.Child("averageValue"), v, "must be positive"))
	}
	if n := target.AverageUtilization; n != nil && *n < 1 {
		errs = append(errs, field.Invalid(path.Child("averageUtilization"), *n, "must be greater than 0"))
	}
	return errs
}

func validateIdentifier(id *autoscalingv2.MetricIdentifier, path *field.Path) field.ErrorList {
	return validateSegment(id.Name, path.Child("metric", "name"), "must specify a metric name")
}

func validateScaling(rules *autoscalingv2.HPAScalingRules, path *field.Path) field.ErrorList {
	if rules == nil {
		return nil
	}
	var errs field.ErrorList
	if n := rules.StabilizationWindowSeconds; n != nil {
		where := path.Child("stabilizationWindowSeconds")
		if *n < 0 {
			errs = append(errs, field.Invalid(where, *n, "must be greater than or equal to zero"))
		}
		if *n > maxStabilizationSeconds {
			errs = append(errs, field.Invalid(where, *n, fmt.Sprintf("must be less than or equal to %v", maxStabilizationSeconds)))
		}
	}
	if p := rules.SelectPolicy; p != nil {
		errs = append(errs, rule.OneOf(*p, path.Child("selectPolicy"), autoscalingv2.DisabledPolicySelect, autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect)...)
	}
	policies := path.Child("policies")
	if len(rules.Policies) == 0 {
		errs = append(errs, field.Required(policies, "must specify at least one Policy"))
	}
	for i, p := range rules.Policies {
		where := policies.Index(i)
		errs = append(errs, rule.OneOf(p.Type, where.Child("type"), autoscalingv2.PercentScalingPolicy, autoscalingv2.PodsScalingPolicy)...)
		if p.Value <= 0 {
			errs = append(errs, field.Invalid(where.Child("value"), p.Value, "must be greater than zero"))
		}
		if p.PeriodSeconds <= 0 {
			errs = append(errs, field.Invalid(where.Child("periodSeconds"), p.PeriodSeconds, "must be greater than zero"))
		}
		if p.PeriodSeconds > maxPeriodSeconds {
			errs = append(errs, field.Invalid(where.Child("periodSeconds"), p.PeriodSeconds, fmt.Sprintf("must be less than or equal to %v", maxPeriodSeconds)))
		}
	}
	if rules.Tolerance != nil {
		errs = append(errs, rule.NonNegative(*rules.Tolerance, path.Child("tolerance"))...)
	}
	return errs
}
