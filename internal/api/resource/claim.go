// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"fmt"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/rule"
)

// requestNames are the names of a claim's requests with those of their
// alternatives.
type requestNames map[string]sets.Set[string]

func namesOf(claim *resourcev1.DeviceClaim) requestNames {
	names := requestNames{}
	for _, r := range claim.Requests {
		alternatives := sets.New[string]()
		for _, s := range r.FirstAvailable {
			alternatives.Insert(s.Name)
		}
		names[r.Name] = alternatives
	}
	return names
}

// validateRef checks a reference to a request, or to an alternative as
// "request/alternative".
func (n requestNames) validateRef(name string, path *field.Path) field.ErrorList {
	const detail = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
	parts := strings.Split(name, "/")
	if len(parts) > 2 {
		return field.ErrorList{field.Invalid(path, name, detail)}
	}
	var errs field.ErrorList
	for _, p := range parts {
		errs = append(errs, rule.Label(p, path)...)
	}
	alternatives, found := n[parts[0]]
	if !found || len(parts) == 2 && !alternatives.Has(parts[1]) {
		errs = append(errs, field.Invalid(path, name, detail))
	}
	return errs
}

func (n requestNames) validateRefs(names []string, path *field.Path) field.ErrorList {
	return unique(names, resourcev1.DeviceRequestsMaxSize, path, same[string], itself[string], func(name *string, p *field.Path) field.ErrorList {
		return n.validateRef(*name, p)
	})
}

func validateClaim(spec *resourcev1.ResourceClaimSpec, path *field.Path) field.ErrorList {
	claim, path := &spec.Devices, path.Child("devices")
	names := namesOf(claim)
	errs := unique(claim.Requests, resourcev1.DeviceRequestsMaxSize, path.Child("requests"),
		func(r *resourcev1.DeviceRequest) string { return r.Name }, itself[resourcev1.DeviceRequest], validateRequest)
	errs = append(errs, atMost(claim.Constraints, resourcev1.DeviceConstraintsMaxSize, path.Child("constraints"),
		func(c *resourcev1.DeviceConstraint, p *field.Path) field.ErrorList {
			return append(names.validateRefs(c.Requests, p.Child("requests")), validateConstraint(c, p)...)
		})...)
	return append(errs, atMost(claim.Config, resourcev1.DeviceConfigMaxSize, path.Child("config"),
		func(c *resourcev1.DeviceClaimConfiguration, p *field.Path) field.ErrorList {
			return append(names.validateRefs(c.Requests, p.Child("requests")), validateConfiguration(&c.DeviceConfiguration, false, p)...)
		})...)
}

func validateRequest(r *resourcev1.DeviceRequest, path *field.Path) field.ErrorList {
	errs := rule.Label(r.Name, path.Child("name"))
	switch first := len(r.FirstAvailable) > 0; {
	case !first && r.Exactly == nil:
		errs = append(errs, field.Required(path, "exactly one of `exactly` or `firstAvailable` is required"))
	case first && r.Exactly != nil:
		errs = append(errs, field.Invalid(path, nil, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"))
	case first:
		errs = append(errs, unique(r.FirstAvailable, resourcev1.FirstAvailableDeviceRequestMaxSize, path.Child("firstAvailable"),
			func(s *resourcev1.DeviceSubRequest) string { return s.Name }, itself[resourcev1.DeviceSubRequest],
			func(s *resourcev1.DeviceSubRequest, p *field.Path) field.ErrorList {
				return append(rule.Label(s.Name, p.Child("name")),
					validateAsked(s.DeviceClassName, s.Selectors, s.AllocationMode, s.Count, s.Tolerations, p)...)
			})...)
	default:
		e := r.Exactly
		errs = append(errs, validateAsked(e.DeviceClassName, e.Selectors, e.AllocationMode, e.Count, e.Tolerations, path.Child("exactly"))...)
	}
	return errs
}

// validateAsked checks what requests and their alternatives have in common.
func validateAsked(class string, selectors []resourcev1.DeviceSelector, mode resourcev1.DeviceAllocationMode, count int64, tolerations []resourcev1.DeviceToleration, path *field.Path) field.ErrorList {
	const everything, exact = resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount
	var errs field.ErrorList
	if where := path.Child("deviceClassName"); class == "" {
		errs = append(errs, field.Required(where, ""))
	} else {
		errs = append(errs, rule.Subdomain(class, where)...)
	}
	errs = append(errs, validateSelectors(selectors, false, path.Child("selectors"))...)
	switch {
	case mode == everything && count != 0:
		errs = append(errs, field.Invalid(path.Child("count"), count, fmt.Sprintf("must not be specified when allocationMode is '%s'", mode)))
	case mode == exact && count <= 0:
		errs = append(errs, field.Invalid(path.Child("count"), count, "must be greater than zero"))
	case mode != everything && mode != exact:
		errs = append(errs, field.NotSupported(path.Child("allocationMode"), mode, []resourcev1.DeviceAllocationMode{everything, exact}))
	}
	return append(errs, atMost(tolerations, resourcev1.DeviceTolerationsMaxLength, path.Child("tolerations"), validateToleration)...)
}

func validateConstraint(c *resourcev1.DeviceConstraint, path *field.Path) field.ErrorList {
	name, where := c.MatchAttribute, path.Child("matchAttribute")
	if name == nil {
		name, where = c.DistinctAttribute, path.Child("distinctAttribute")
	}
	if name == nil {
		return field.ErrorList{field.Required(path, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`)}
	}
	errs := validateQualifiedName(resourcev1.QualifiedName(*name), where)
	if !strings.Contains(string(*name), "/") {
		errs = append(errs, field.Invalid(where, *name, "a fully qualified name must be a domain and a name separated by a slash"))
	}
	return errs
}

// effects are what a taint can do to a device, sorted.
func effects() []resourcev1.DeviceTaintEffect {
	return []resourcev1.DeviceTaintEffect{resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone}
}

func validateToleration(t *resourcev1.DeviceToleration, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if t.Key != "" {
		errs = append(errs, metavalidation.ValidateLabelName(t.Key, path.Child("key"))...)
	}
	operators := []resourcev1.DeviceTolerationOperator{resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists}
	switch t.Operator {
	case resourcev1.DeviceTolerationOpExists:
		if t.Value != "" {
			errs = append(errs, field.Invalid(path.Child("value"), t.Value, "must be empty for operator `Exists`"))
		}
	case resourcev1.DeviceTolerationOpEqual:
		errs = append(errs, rule.Messages(path.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
	case "":
		errs = append(errs, field.Required(path.Child("operator"), ""))
	default:
		errs = append(errs, field.NotSupported(path.Child("operator"), t.Operator, operators))
	}
	if t.Effect != "" && !slices.Contains(effects(), t.Effect) {
		errs = append(errs, field.NotSupported(path.Child("effect"), t.Effect, effects()))
	}
	return errs
}
