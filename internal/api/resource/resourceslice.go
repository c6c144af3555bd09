// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"context"
	"fmt"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func resourceSlice() *api.Kind {
	spec := resourcev1.ResourceSliceSpec{}.SwaggerDoc()
	return &api.Kind{
		Group: resourcev1.GroupName, Name: "ResourceSlice", Resource: "resourceslices", Singular: "resourceslice",
		Versions: []api.Version{{
			GroupVersion: resourcev1.SchemeGroupVersion,
			New:          api.New[resourcev1.ResourceSlice], NewList: api.NewList[resourcev1.ResourceSliceList],
			Default: api.Default(defaultSlice),
		}},
		Storage: resourcev1.SchemeGroupVersion,
		Prefix:  "/registry/resourceslices",
		New:     api.New[resourcev1.ResourceSlice], NewList: api.NewList[resourcev1.ResourceSliceList],
		Rules: api.For[*resourcev1.ResourceSlice]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, s *resourcev1.ResourceSlice) {
				s.Generation = 1
				dropFromSlice(&s.Spec, nil)
			},
			PrepareForUpdate: func(_ context.Context, s, old *resourcev1.ResourceSlice) {
				dropFromSlice(&s.Spec, &old.Spec)
				if !apiequality.Semantic.DeepEqual(s.Spec, old.Spec) {
					s.Generation = old.Generation + 1
				}
			},
			Validate: func(s *resourcev1.ResourceSlice) field.ErrorList {
				return validateSlice(&s.Spec, nil, field.NewPath("spec"))
			},
			ValidateUpdate: func(s, old *resourcev1.ResourceSlice) field.ErrorList {
				return validateSlice(&s.Spec, &old.Spec, field.NewPath("spec"))
			},
			Warnings: func(s, _ *resourcev1.ResourceSlice) []string {
				if s.Spec.Driver == strings.ToLower(s.Spec.Driver) {
					return nil
				}
				return []string{fmt.Sprintf("spec.driver: driver names should be lowercase; %q contains uppercase characters", s.Spec.Driver)}
			},
			Fields: func(s *resourcev1.ResourceSlice) fields.Set {
				return fields.Set{"spec.nodeName": nodeName(s), "spec.driver": s.Spec.Driver}
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Node", spec["nodeName"]),
				table.String("Driver", spec["driver"]),
				table.String("Pool", resourcev1.ResourcePool{}.SwaggerDoc()["name"]),
				table.Age(),
			},
			Cells: func(s *resourcev1.ResourceSlice) []any {
				return []any{s.Name, nodeName(s), s.Spec.Driver, s.Spec.Pool.Name, table.Since(s.CreationTimestamp)}
			},
		}.Rules(),
		IndexedFields:            []string{"spec.nodeName"},
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
	}
}

func nodeName(s *resourcev1.ResourceSlice) string {
	if s.Spec.NodeName == nil {
		return ""
	}
	return *s.Spec.NodeName
}

func defaultSlice(s *resourcev1.ResourceSlice) {
	for i := range s.Spec.Devices {
		for n := range s.Spec.Devices[i].Taints {
			defaultTaint(&s.Spec.Devices[i].Taints[n])
		}
	}
}

func validateSlice(spec, old *resourcev1.ResourceSliceSpec, path *field.Path) field.ErrorList {
	errs := validateDriver(spec.Driver, path.Child("driver"))
	errs = append(errs, validatePoolName(spec.Pool.Name, path.Child("pool", "name"))...)
	if n := spec.Pool.ResourceSliceCount; n <= 0 {
		errs = append(errs, field.Invalid(path.Child("pool", "resourceSliceCount"), n, "must be greater than zero"))
	}
	if n := spec.Pool.Generation; n < 0 {
		errs = append(errs, field.Invalid(path.Child("pool", "generation"), n, "must be greater than or equal to zero"))
	}
	if old != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(spec.Pool.Name, old.Pool.Name, path.Child("pool", "name"))...)
		errs = append(errs, apivalidation.ValidateImmutableField(spec.Driver, old.Driver, path.Child("driver"))...)
		errs = append(errs, apivalidation.ValidateImmutableField(spec.NodeName, old.NodeName, path.Child("nodeName"))...)
	}
	errs = append(errs, validatePlacement(spec, path)...)
	if spec.SharedCounters != nil && spec.Devices != nil {
		errs = append(errs, field.Invalid(path, "", "only one of `sharedCounters` or `devices` is allowed"))
	}
	limit := resourcev1.ResourceSliceMaxDevices
	for i := range spec.Devices {
		if advanced(&spec.Devices[i]) {
			limit = resourcev1.ResourceSliceMaxDevicesWithAdvancedFeatures
		}
	}
	nameOf := func(d *resourcev1.Device) string { return d.Name }
	errs = append(errs, unique(spec.Devices, limit, path.Child("devices"), nameOf, func(d *resourcev1.Device) any { return d.Name },
		func(d *resourcev1.Device, p *field.Path) field.ErrorList {
			return validateDevice(d, deviceOf(old, d.Name), spec.PerDeviceNodeSelection != nil && *spec.PerDeviceNodeSelection, p)
		})...)
	return append(errs, unique(spec.SharedCounters, resourcev1.ResourceSliceMaxCounterSets, path.Child("sharedCounters"),
		func(c *resourcev1.CounterSet) string { return c.Name }, itself[resourcev1.CounterSet],
		func(c *resourcev1.CounterSet, p *field.Path) field.ErrorList {
			return validateCounters(c.Name, c.Counters, resourcev1.ResourceSliceMaxCountersPerCounterSet, "name", p)
		})...)
}

func deviceOf(spec *resourcev1.ResourceSliceSpec, name string) *resourcev1.Device {
	if spec == nil {
		return nil
	}
	for i := range spec.Devices {
		if spec.Devices[i].Name == name {
			return &spec.Devices[i]
		}
	}
	return nil
}

// advanced says whether a device uses what makes it large.
func advanced(d *resourcev1.Device) bool {
	return hasListAttributes(*d) || len(d.Taints) > 0 || len(d.ConsumesCounters) > 0
}

// validatePlacement requires one way of saying where the devices are.
func validatePlacement(spec *resourcev1.ResourceSliceSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	var set []string
	if name := spec.NodeName; name != nil {
		if *name == "" {
			errs = append(errs, field.Invalid(path.Child("nodeName"), "", "must be either unset or set to a non-empty string"))
		} else {
			set = append(set, "`nodeName`")
			errs = append(errs, rule.Subdomain(*name, path.Child("nodeName"))...)
		}
	}
	if s := spec.NodeSelector; s != nil {
		set = append(set, "`nodeSelector`")
		errs = append(errs, rule.NodeSelector(s, false, path.Child("nodeSelector"))...)
		if len(s.NodeSelectorTerms) != 1 {
			errs = append(errs, field.Invalid(path.Child("nodeSelector", "nodeSelectorTerms"), badvalue.Of(s.NodeSelectorTerms), "must have exactly one node selector term"))
		}
	}
	for _, f := range []struct {
		name  string
		value *bool
	}{{"allNodes", spec.AllNodes}, {"perDeviceNodeSelection", spec.PerDeviceNodeSelection}} {
		if f.value == nil {
			continue
		}
		if *f.value {
			set = append(set, "`"+f.name+"`")
		} else {
			errs = append(errs, field.Invalid(path.Child(f.name), false, "must be either unset or set to true"))
		}
	}
	const detail = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	switch len(set) {
	case 0:
		errs = append(errs, field.Required(path, detail))
	case 1:
	default:
		errs = append(errs, field.Invalid(path, oneField(set...), detail+", but multiple fields are set"))
	}
	return errs
}

// validateCounters checks a set of counters, or the use of one, whose name
// stands in the field called key.
func validateCounters(name string, counters map[string]resourcev1.Counter, limit int, key string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name == "" {
		errs = append(errs, field.Required(path.Child(key), ""))
	} else {
		errs = append(errs, label(name, path.Child(key))...)
	}
	if len(counters) == 0 {
		return append(errs, field.Required(path.Child("counters"), ""))
	}
	return append(errs, entries(counters, limit, validation.DNS1123LabelMaxLength, path.Child("counters"), label,
		func(*resourcev1.Counter, *field.Path) field.ErrorList { return nil })...)
}
