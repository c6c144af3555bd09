// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"context"

	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

func deviceClass() *api.Kind {
	return &api.Kind{
		Group: resourcev1.GroupName, Name: "DeviceClass", Resource: "deviceclasses", Singular: "deviceclass",
		Versions: []api.Version{{
			GroupVersion: resourcev1.SchemeGroupVersion,
			New:          api.New[resourcev1.DeviceClass], NewList: api.NewList[resourcev1.DeviceClassList],
		}},
		Storage: resourcev1.SchemeGroupVersion,
		Prefix:  "/registry/deviceclasses",
		New:     api.New[resourcev1.DeviceClass], NewList: api.NewList[resourcev1.DeviceClassList],
		Rules: api.For[*resourcev1.DeviceClass]{
			ValidateName: func(name string, prefix bool) []string {
				if prefix {
					return apivalidation.NameIsDNSSubdomain(name, prefix)
				}
				return content.IsDNS1123Subdomain(name)
			},
			PrepareForCreate: func(_ context.Context, c *resourcev1.DeviceClass) {
				c.Generation = 1
			},
			PrepareForUpdate: func(_ context.Context, c, old *resourcev1.DeviceClass) {
				if !apiequality.Semantic.DeepEqual(c.Spec, old.Spec) {
					c.Generation = old.Generation + 1
				}
			},
			Validate: func(c *resourcev1.DeviceClass) field.ErrorList {
				return validateClass(&c.Spec, nil, field.NewPath("spec"))
			},
			ValidateUpdate: func(c, old *resourcev1.DeviceClass) field.ErrorList {
				return validateClass(&c.Spec, &old.Spec, field.NewPath("spec"))
			},
			Columns: []metav1.TableColumnDefinition{table.Name(), table.Age()},
			Cells: func(c *resourcev1.DeviceClass) []any {
				return []any{c.Name, table.Since(c.CreationTimestamp)}
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
	}
}

func validateClass(spec, old *resourcev1.DeviceClassSpec, path *field.Path) field.ErrorList {
	stored := old != nil && apiequality.Semantic.DeepEqual(spec.Selectors, old.Selectors)
	errs := validateSelectors(spec.Selectors, stored, path.Child("selectors"))
	stored = old != nil && apiequality.Semantic.DeepEqual(spec.Config, old.Config)
	errs = append(errs, atMost(spec.Config, resourcev1.DeviceConfigMaxSize, path.Child("config"), func(c *resourcev1.DeviceClassConfiguration, p *field.Path) field.ErrorList {
		return validateConfiguration(&c.DeviceConfiguration, stored, p)
	})...)
	return append(errs, validate.ExtendedResourceName(context.Background(), operation.Operation{}, path.Child("extendedResourceName"), spec.ExtendedResourceName, nil)...)
}
