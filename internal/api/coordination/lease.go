// SPDX-License-Identifier: Apache-2.0

package coordination

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

func lease() *api.Kind {
	return &api.Kind{
		Group: coordinationv1.GroupName, Name: "Lease", Resource: "leases", Singular: "lease",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: coordinationv1.SchemeGroupVersion,
			New:          api.New[coordinationv1.Lease], NewList: api.NewList[coordinationv1.LeaseList],
		}},
		Storage: coordinationv1.SchemeGroupVersion,
		Prefix:  "/registry/leases",
		New:     api.New[coordinationv1.Lease], NewList: api.NewList[coordinationv1.LeaseList],
		PlainFinalizers: true,
		Rules: api.For[*coordinationv1.Lease]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			// Coordinated leader election is off by default: its fields are kept
			// only where they stand already.
			PrepareForCreate: func(_ context.Context, l *coordinationv1.Lease) {
				l.Spec.Strategy, l.Spec.PreferredHolder = nil, nil
			},
			PrepareForUpdate: func(_ context.Context, l, old *coordinationv1.Lease) {
				if old.Spec.Strategy == nil {
					l.Spec.Strategy = nil
				}
				if old.Spec.PreferredHolder == nil {
					l.Spec.PreferredHolder = nil
				}
			},
			Validate:       func(l *coordinationv1.Lease) field.ErrorList { return validateLease(&l.Spec) },
			ValidateUpdate: func(l, _ *coordinationv1.Lease) field.ErrorList { return validateLease(&l.Spec) },
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Holder", coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"]),
				table.Age(),
			},
			Cells: func(l *coordinationv1.Lease) []any {
				holder := ""
				if l.Spec.HolderIdentity != nil {
					holder = *l.Spec.HolderIdentity
				}
				return []any{l.Name, holder, table.Since(l.CreationTimestamp)}
			},
		}.Rules(),
		AllowCreateOnUpdate: true,
	}
}

func validateLease(spec *coordinationv1.LeaseSpec) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	if d := spec.LeaseDurationSeconds; d != nil && *d <= 0 {
		errs = append(errs, field.Invalid(path.Child("leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	if n := spec.LeaseTransitions; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(path.Child("leaseTransitions"), *n, "must be greater than or equal to 0"))
	}
	return errs
}
