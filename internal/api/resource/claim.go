// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"context"
	"fmt"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
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
		errs = append(errs, validateBothForms(r, path)...)
	case first:
		errs = append(errs, unique(r.FirstAvailable, resourcev1.FirstAvailableDeviceRequestMaxSize, path.Child("firstAvailable"),
			func(s *resourcev1.DeviceSubRequest) string { return s.Name }, itself[resourcev1.DeviceSubRequest],
			func(s *resourcev1.DeviceSubRequest, p *field.Path) field.ErrorList {
				errs := append(rule.Label(s.Name, p.Child("name")), validateSubrequestClass(s, p.Child("deviceClassName"))...)
				return append(errs, validateAsked(s.Selectors, s.AllocationMode, s.Count, s.Tolerations, p)...)
			})...)
	default:
		e, path := r.Exactly, path.Child("exactly")
		if where := path.Child("deviceClassName"); e.DeviceClassName == "" {
			errs = append(errs, field.Required(where, ""))
		} else {
			errs = append(errs, rule.Subdomain(e.DeviceClassName, where)...)
		}
		errs = append(errs, validateAsked(e.Selectors, e.AllocationMode, e.Count, e.Tolerations, path)...)
	}
	return errs
}

// validateBothForms checks a request that has both forms, of which one is too
// much, for what each field has to be whatever stands beside it.
func validateBothForms(r *resourcev1.DeviceRequest, path *field.Path) field.ErrorList {
	e, exactly := r.Exactly, path.Child("exactly")
	errs := append(validateMode(e.AllocationMode, exactly), validateTolerationForms(e.Tolerations, exactly)...)
	return append(errs, unique(r.FirstAvailable, resourcev1.FirstAvailableDeviceRequestMaxSize, path.Child("firstAvailable"),
		func(s *resourcev1.DeviceSubRequest) string { return s.Name }, itself[resourcev1.DeviceSubRequest],
		func(s *resourcev1.DeviceSubRequest, p *field.Path) field.ErrorList {
			errs := append(validateSubrequestClass(s, p.Child("deviceClassName")), validateMode(s.AllocationMode, p)...)
			return append(errs, validateTolerationForms(s.Tolerations, p)...)
		})...)
}

func validateSubrequestClass(s *resourcev1.DeviceSubRequest, path *field.Path) field.ErrorList {
	if s.DeviceClassName == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return validate.LongName(context.Background(), operation.Operation{}, path, &s.DeviceClassName, nil)
}

func validateMode(mode resourcev1.DeviceAllocationMode, path *field.Path) field.ErrorList {
	const everything, exact = resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount
	if mode == everything || mode == exact {
		return nil
	}
	return field.ErrorList{field.NotSupported(path.Child("allocationMode"), mode, []resourcev1.DeviceAllocationMode{everything, exact})}
}

func validateTolerationForms(tolerations []resourcev1.DeviceToleration, path *field.Path) field.ErrorList {
	return atMost(tolerations, resourcev1.DeviceTolerationsMaxLength, path.Child("tolerations"), validateTolerationForm)
}

// validateAsked checks what requests and their alternatives have in common.
func validateAsked(selectors []resourcev1.DeviceSelector, mode resourcev1.DeviceAllocationMode, count int64, tolerations []resourcev1.DeviceToleration, path *field.Path) field.ErrorList {
	errs := validateSelectors(selectors, false, path.Child("selectors"))
	switch {
	case mode == resourcev1.DeviceAllocationModeAll && count != 0:
		errs = append(errs, field.Invalid(path.Child("count"), count, fmt.Sprintf("must not be specified when allocationMode is '%s'", mode)))
	case mode == resourcev1.DeviceAllocationModeExactCount && count <= 0:
		errs = append(errs, field.Invalid(path.Child("count"), count, "must be greater than zero"))
	}
	errs = append(errs, validateMode(mode, path)...)
	return append(errs, atMost(tolerations, resourcev1.DeviceTolerationsMaxLength, path.Child("tolerations"), validateToleration)...)
}

func validateConstraint(c *resourcev1.DeviceConstraint, path *field.Path) field.ErrorList {
	if c.MatchAttribute == nil && c.DistinctAttribute == nil {
		return field.ErrorList{field.Required(path, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`)}
	}
	ctx, op := context.Background(), operation.Operation{}
	errs := validate.ResourceFullyQualifiedName(ctx, op, path.Child("matchAttribute"), c.MatchAttribute, nil)
	return append(errs, validate.ResourceFullyQualifiedName(ctx, op, path.Child("distinctAttribute"), c.DistinctAttribute, nil)...)
}

// effects are what a taint can do to a device, sorted.
func effects() []resourcev1.DeviceTaintEffect {
	return []resourcev1.DeviceTaintEffect{resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone}
}

func validateToleration(t *resourcev1.DeviceToleration, path *field.Path) field.ErrorList {
	errs := validateTolerationForm(t, path)
	switch {
	case t.Operator == resourcev1.DeviceTolerationOpExists && t.Value != "":
		errs = append(errs, field.Invalid(path.Child("value"), t.Value, "must be empty for operator `Exists`"))
	case t.Operator == resourcev1.DeviceTolerationOpEqual:
		errs = append(errs, rule.Messages(path.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
	}
	return errs
}

// validateTolerationForm checks each field of a toleration by itself.
func validateTolerationForm(t *resourcev1.DeviceToleration, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if t.Key != "" {
		errs = append(errs, metavalidation.ValidateLabelName(t.Key, path.Child("key"))...)
	}
	switch t.Operator {
	case resourcev1.DeviceTolerationOpExists, resourcev1.DeviceTolerationOpEqual:
	case "":
		errs = append(errs, field.Required(path.Child("operator"), ""))
	default:
		errs = append(errs, field.NotSupported(path.Child("operator"), t.Operator,
			[]resourcev1.DeviceTolerationOperator{resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists}))
	}
	if t.Effect != "" && !slices.Contains(effects(), t.Effect) {
		errs = append(errs, field.NotSupported(path.Child("effect"), t.Effect, effects()))
	}
	return errs
}
