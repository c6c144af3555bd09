// SPDX-License-Identifier: Apache-2.0

package storagemigration

import (
	"context"
	"strings"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/table"
)

func storageVersionMigration() *api.Kind {
	// The name has a plain column here, without a format.
	name := table.String("Name", table.Name().Description)
	return &api.Kind{
		Group: storagemigrationv1.GroupName, Name: "StorageVersionMigration", Resource: "storageversionmigrations", Singular: "storageversionmigration",
		Versions: []api.Version{{
			GroupVersion: storagemigrationv1.SchemeGroupVersion,
			New:          api.New[storagemigrationv1.StorageVersionMigration], NewList: api.NewList[storagemigrationv1.StorageVersionMigrationList],
		}},
		Storage: storagemigrationv1.SchemeGroupVersion,
		Prefix:  "/registry/storageversionmigrations",
		New:     api.New[storagemigrationv1.StorageVersionMigration], NewList: api.NewList[storagemigrationv1.StorageVersionMigrationList],
		Rules: api.For[*storagemigrationv1.StorageVersionMigration]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, m *storagemigrationv1.StorageVersionMigration) {
				m.Status = storagemigrationv1.StorageVersionMigrationStatus{}
			},
			PrepareForUpdate: func(_ context.Context, m, old *storagemigrationv1.StorageVersionMigration) {
				m.Status = old.Status
			},
			Validate: validateMigration,
			ValidateUpdate: func(m, old *storagemigrationv1.StorageVersionMigration) field.ErrorList {
				errs := validateMigration(m)
				if !apiequality.Semantic.DeepEqual(m.Spec, old.Spec) {
					errs = append(errs, field.Invalid(field.NewPath("spec"), badvalue.Of(m.Spec), apivalidation.FieldImmutableErrorMsg))
				}
				return errs
			},
			Columns: []metav1.TableColumnDefinition{
				name,
				table.String("Resource", "GroupResource to migrate"),
				table.String("Status", "Status of the migration"),
			},
			Cells: func(m *storagemigrationv1.StorageVersionMigration) []any {
				state := "Unknown"
				for _, c := range m.Status.Conditions {
					switch storagemigrationv1.MigrationConditionType(c.Type) {
					case storagemigrationv1.MigrationRunning, storagemigrationv1.MigrationFailed, storagemigrationv1.MigrationSucceeded:
						if c.Status == metav1.ConditionTrue {
							state = c.Type
						}
					}
				}
				return []any{m.Name, m.Spec.Resource.String(), state}
			},
		}.Rules(),
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, m, old *storagemigrationv1.StorageVersionMigration) {
				m.Spec = old.Spec
				metav1.ResetObjectMetaForStatus(&m.ObjectMeta, &old.ObjectMeta)
			}),
			ValidateUpdate: api.Update(validateMigrationStatus),
			ResetFields:    []string{"metadata", "spec"},
		},
	}
}

func validateMigration(m *storagemigrationv1.StorageVersionMigration) field.ErrorList {
	path := field.NewPath("spec", "resource")
	var errs field.ErrorList
	resource, group := m.Spec.Resource.Resource, m.Spec.Resource.Group
	if resource == "" {
		errs = append(errs, field.Required(path.Child("resource"), "resource is required to be set"))
	} else if messages := validation.IsDNS1035Label(resource); len(messages) > 0 {
		errs = append(errs, field.Invalid(path.Child("resource"), resource, strings.Join(messages, ",")))
	}
	if messages := validation.IsDNS1123Subdomain(group); group != "" && len(messages) > 0 {
		errs = append(errs, field.Invalid(path.Child("group"), group, strings.Join(messages, ",")))
	}
	return errs
}

func validateMigrationStatus(m, old *storagemigrationv1.StorageVersionMigration) field.ErrorList {
	path := field.NewPath("status")
	var errs field.ErrorList
	now, was := m.Status.ResourceVersion, old.Status.ResourceVersion
	if now != "" {
		if _, err := resourceversion.CompareResourceVersion(now, now); err != nil {
			errs = append(errs, field.Invalid(path.Child("resourceVersion"), now, err.Error()))
		}
	}
	conditions := path.Child("conditions")
	errs = append(errs, metavalidation.ValidateConditions(m.Status.Conditions, conditions)...)
	if was != "" && was != now {
		errs = append(errs, field.Invalid(path.Child("resourceVersion"), now, apivalidation.FieldImmutableErrorMsg))
	}
	succeeded, failed := string(storagemigrationv1.MigrationSucceeded), string(storagemigrationv1.MigrationFailed)
	is := func(m *storagemigrationv1.StorageVersionMigration, t string) bool {
		return meta.IsStatusConditionTrue(m.Status.Conditions, t)
	}
	check := func(bad bool, detail string) {
		if bad {
			errs = append(errs, field.Invalid(conditions, m.Status.Conditions, detail))
		}
	}
	check(is(m, succeeded) && is(m, failed), "Both success and failed conditions cannot be true at the same time")
	check(is(old, succeeded) && !is(m, succeeded), "Success condition cannot be set to false once it is true")
	check(is(old, failed) && !is(m, failed), "Failed condition cannot be set to false once it is true")
	return errs
}
