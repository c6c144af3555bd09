// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"maps"

	storagev1 "k8s.io/api/storage/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

func volumeAttributesClass() *api.Kind {
	return &api.Kind{
		Group: storagev1.GroupName, Name: "VolumeAttributesClass", Resource: "volumeattributesclasses", Singular: "volumeattributesclass",
		ShortNames: []string{"vac"},
		Versions: []api.Version{{
			GroupVersion: storagev1.SchemeGroupVersion,
			New:          api.New[storagev1.VolumeAttributesClass], NewList: api.NewList[storagev1.VolumeAttributesClassList],
		}},
		Storage: storagev1.SchemeGroupVersion,
		Prefix:  "/registry/volumeattributesclasses",
		New:     api.New[storagev1.VolumeAttributesClass], NewList: api.NewList[storagev1.VolumeAttributesClassList],
		Rules: api.For[*storagev1.VolumeAttributesClass]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			Validate:     validateAttributesClass,
			ValidateUpdate: func(c, old *storagev1.VolumeAttributesClass) field.ErrorList {
				var errs field.ErrorList
				if c.DriverName != old.DriverName {
					errs = append(errs, field.Forbidden(field.NewPath("driverName"), "updates to driverName are forbidden."))
				}
				if !maps.Equal(c.Parameters, old.Parameters) {
					errs = append(errs, field.Forbidden(field.NewPath("parameters"), "updates to parameters are forbidden."))
				}
				return append(errs, validateAttributesClass(c)...)
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("DriverName", storagev1.VolumeAttributesClass{}.SwaggerDoc()["driverName"]),
				table.Age(),
			},
			Cells: func(c *storagev1.VolumeAttributesClass) []any {
				return []any{c.Name, c.DriverName, table.Since(c.CreationTimestamp)}
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
	}
}

func validateAttributesClass(c *storagev1.VolumeAttributesClass) field.ErrorList {
	path := field.NewPath("parameters")
	errs := validateProvisioner(c.DriverName, field.NewPath("driverName"))
	errs = append(errs, validateParameters(c.Parameters, path)...)
	if len(c.Parameters) == 0 {
		errs = append(errs, field.Required(path, "must contain at least one key/value pair"))
	}
	return errs
}
