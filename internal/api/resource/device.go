// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"fmt"
	"regexp"

	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/rule"
)

// validateDevice checks one device of a slice; old is that of the same name
// before. alone says that each device tells itself where it is.
func validateDevice(d, old *resourcev1.Device, alone bool, path *field.Path) field.ErrorList {
	errs := rule.Label(d.Name, path.Child("name"))
	if n := len(d.Attributes) + len(d.Capacity); n > resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice {
		errs = append(errs, field.Invalid(path, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice)))
	}
	if n := attributeValues(d); n > resourcev1.ResourceSliceMaxAttributeValuesPerDevice {
		errs = append(errs, field.Invalid(path, n, fmt.Sprintf("the total number of attribute values must not exceed %d", resourcev1.ResourceSliceMaxAttributeValuesPerDevice)))
	}
	const keyLength = resourcev1.DeviceMaxDomainLength + 1 + resourcev1.DeviceMaxIDLength
	errs = append(errs, entries(d.Attributes, -1, keyLength, path.Child("attributes"), validateQualifiedName, validateAttribute)...)
	shared := d.AllowMultipleAllocations != nil && *d.AllowMultipleAllocations
	errs = append(errs, entries(d.Capacity, -1, keyLength, path.Child("capacity"), validateQualifiedName,
		func(c *resourcev1.DeviceCapacity, p *field.Path) field.ErrorList {
			return validateCapacity(c, shared, p)
		})...)
	if old == nil || !apiequality.Semantic.DeepEqual(old.Taints, d.Taints) {
		errs = append(errs, atMost(d.Taints, resourcev1.DeviceTaintsMaxLength, path.Child("taints"),
			func(t *resourcev1.DeviceTaint, p *field.Path) field.ErrorList { return validateTaint(t, nil, p) })...)
	}
	errs = append(errs, unique(d.ConsumesCounters, resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice, path.Child("consumesCounters"),
		func(c *resourcev1.DeviceCounterConsumption) string { return c.CounterSet }, itself[resourcev1.DeviceCounterConsumption],
		func(c *resourcev1.DeviceCounterConsumption, p *field.Path) field.ErrorList {
			return validateCounters(c.CounterSet, c.Counters, resourcev1.ResourceSliceMaxCountersPerDeviceCounterConsumption, "counterSet", p)
		})...)
	if alone {
		errs = append(errs, validateDevicePlacement(d, path)...)
	} else if d.NodeName != nil || d.NodeSelector != nil || d.AllNodes != nil {
		errs = append(errs, field.Invalid(path, nil, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"))
	}
	return append(errs, validateBinding(d.BindingConditions, d.BindingFailureConditions, path)...)
}

func validateDevicePlacement(d *resourcev1.Device, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	var set []string
	if name := d.NodeName; name != nil {
		if *name == "" {
			errs = append(errs, field.Invalid(path.Child("nodeName"), "", "must not be empty"))
		} else {
			set = append(set, "`nodeName`")
			errs = append(errs, rule.Subdomain(*name, path.Child("nodeName"))...)
		}
	}
	if d.NodeSelector != nil {
		set = append(set, "`nodeSelector`")
		errs = append(errs, rule.NodeSelector(d.NodeSelector, false, path.Child("nodeSelector"))...)
	}
	if d.AllNodes != nil {
		if *d.AllNodes {
			set = append(set, "`allNodes`")
		} else {
			errs = append(errs, field.Invalid(path.Child("allNodes"), false, "must be either unset or set to true"))
		}
	}
	const detail = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
	switch len(set) {
	case 0:
		errs = append(errs, field.Required(path, detail))
	case 1:
	default:
		errs = append(errs, field.Invalid(path, oneField(set...), detail))
	}
	return errs
}

func attributeValues(d *resourcev1.Device) int {
	n := 0
	for _, a := range d.Attributes {
		n += max(1, len(a.IntValues)+len(a.BoolValues)+len(a.StringValues)+len(a.VersionValues))
	}
	return n
}

func validateAttribute(a *resourcev1.DeviceAttribute, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	var set []string
	one := func(name string, present bool) {
		if present {
			set = append(set, name)
		}
	}
	many := func(name string, present bool, n int, value any) {
		one(name, present)
		if present && n == 0 {
			errs = append(errs, field.Invalid(path.Child(name), value, "must not be empty if specified"))
		}
	}
	one("int", a.IntValue != nil)
	one("bool", a.BoolValue != nil)
	one("string", a.StringValue != nil)
	one("version", a.VersionValue != nil)
	many("ints", a.IntValues != nil, len(a.IntValues), a.IntValues)
	many("bools", a.BoolValues != nil, len(a.BoolValues), a.BoolValues)
	many("strings", a.StringValues != nil, len(a.StringValues), a.StringValues)
	many("versions", a.VersionValues != nil, len(a.VersionValues), a.VersionValues)
	if a.StringValue != nil {
		errs = append(errs, validateText(*a.StringValue, path.Child("string"))...)
	}
	if a.VersionValue != nil {
		errs = append(errs, validateVersion(*a.VersionValue, path.Child("version"))...)
	}
	for i, s := range a.StringValues {
		errs = append(errs, validateText(s, path.Child("strings").Index(i))...)
	}
	for i, v := range a.VersionValues {
		errs = append(errs, validateVersion(v, path.Child("versions").Index(i))...)
	}
	const all = "one of: `int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`"
	switch len(set) {
	case 0:
		errs = append(errs, field.Invalid(path, "", "must specify "+all))
	case 1:
	default:
		errs = append(errs, field.Invalid(path, oneField(set...), "must specify exactly "+all))
	}
	return errs
}

func validateText(text string, path *field.Path) field.ErrorList {
	if len(text) > resourcev1.DeviceAttributeMaxValueLength {
		return field.ErrorList{field.TooLong(path, "", resourcev1.DeviceAttributeMaxValueLength)}
	}
	return nil
}

func validateVersion(version string, path *field.Path) field.ErrorList {
	const number, pre, build = `(0|[1-9]\d*)`, `(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)`, `[0-9a-zA-Z-]+`
	semver := regexp.MustCompile(`^` + number + `\.` + number + `\.` + number +
		`(-` + pre + `(\.` + pre + `)*)?` + `(\+` + build + `(\.` + build + `)*)?$`)
	var errs field.ErrorList
	if !semver.MatchString(version) {
		errs = append(errs, field.Invalid(path, version, "must be a string compatible with semver.org spec 2.0.0"))
	}
	return append(errs, validateText(version, path)...)
}

func validateCapacity(c *resourcev1.DeviceCapacity, shared bool, path *field.Path) field.ErrorList {
	policy, where := c.RequestPolicy, path.Child("requestPolicy")
	switch {
	case policy == nil:
		return nil
	case !shared:
		return field.ErrorList{field.Forbidden(where, "allowMultipleAllocations must be true")}
	case len(policy.ValidValues) > 0 && policy.ValidRange != nil:
		return field.ErrorList{field.Forbidden(where, `exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time`)}
	case len(policy.ValidValues) > 0 && policy.Default == nil:
		return field.ErrorList{field.Required(where.Child("default"), "required when validValues is defined")}
	case len(policy.ValidValues) > 0:
		return validateValues(policy.ValidValues, *policy.Default, c.Value, where.Child("validValues"))
	case policy.ValidRange != nil && policy.Default == nil:
		return field.ErrorList{field.Required(where.Child("default"), "required when validRange is defined")}
	case policy.ValidRange != nil:
		return validateRange(policy.ValidRange, *policy.Default, c.Value, where.Child("validRange"))
	}
	return nil
}

func validateValues(values []apiresource.Quantity, fallback, capacity apiresource.Quantity, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range values[1:] {
		if values[i].Cmp(values[i+1]) > 0 {
			errs = append(errs, field.Invalid(path.Index(i+1), values[i+1].String(), "values must be sorted in ascending order"))
		}
	}
	found := false
	errs = append(errs, unique(values, 10, path, func(q *apiresource.Quantity) int64 { return q.Value() },
		func(q *apiresource.Quantity) any { return fmt.Sprint(q.Value()) },
		func(q *apiresource.Quantity, p *field.Path) field.ErrorList {
			found = found || q.Cmp(fallback) == 0
			if q.Cmp(capacity) > 0 {
				return field.ErrorList{field.Invalid(p, q.String(), fmt.Sprintf("option is larger than capacity value: %s", capacity.String()))}
			}
			return nil
		})...)
	if !found {
		errs = append(errs, field.Invalid(path, fallback.String(), "default value is not valid according to the requestPolicy"))
	}
	return errs
}

func validateRange(r *resourcev1.CapacityRequestPolicyRange, fallback, capacity apiresource.Quantity, path *field.Path) field.ErrorList {
	if r.Min == nil {
		return field.ErrorList{field.Required(path.Child("min"), "required when validRange is defined")}
	}
	var errs field.ErrorList
	invalid := func(name string, value *apiresource.Quantity, format string, args ...any) {
		errs = append(errs, field.Invalid(path.Child(name), value.String(), fmt.Sprintf(format, args...)))
	}
	if r.Min.Cmp(capacity) > 0 {
		invalid("min", r.Min, "min is larger than capacity value: %s", capacity.String())
	}
	if fallback.Cmp(*r.Min) < 0 {
		invalid("default", &fallback, "default is less than min: %s", r.Min.String())
	}
	if r.Max != nil {
		if r.Min.Cmp(*r.Max) > 0 {
			invalid("max", r.Min, "min is larger than max: %s", r.Max.String())
		}
		if r.Max.Cmp(capacity) > 0 {
			invalid("max", r.Max, "max is larger than capacity value: %s", capacity.String())
		}
		if fallback.Cmp(*r.Max) > 0 {
			invalid("default", &fallback, "default is more than max: %s", r.Max.String())
		}
	}
	if r.Step == nil {
		return errs
	}
	first := r.Min.DeepCopy()
	first.Add(*r.Step)
	if first.Cmp(capacity) > 0 {
		invalid("step", r.Step, "one step %s is larger than capacity value: %s", first.String(), capacity.String())
	}
	onStep := func(q *apiresource.Quantity) {
		if step := r.Step.Value(); step != 0 && (q.Value()-r.Min.Value())%step != 0 {
			invalid("step", q, "value is not a multiple of a given step (%s) from (%s)", r.Step.String(), r.Min.String())
		}
	}
	onStep(&fallback)
	if r.Max != nil {
		onStep(r.Max)
	}
	return errs
}
