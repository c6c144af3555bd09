// SPDX-License-Identifier: Apache-2.0

package networking

import (
	"context"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/table"
)

func serviceCIDR() *api.Kind {
	return &api.Kind{
		Group: networkingv1.GroupName, Name: "ServiceCIDR", Resource: "servicecidrs", Singular: "servicecidr",
		Versions: []api.Version{{
			GroupVersion: networkingv1.SchemeGroupVersion,
			New:          api.New[networkingv1.ServiceCIDR], NewList: api.NewList[networkingv1.ServiceCIDRList],
		}},
		Storage: networkingv1.SchemeGroupVersion,
		Prefix:  "/registry/servicecidrs",
		New:     api.New[networkingv1.ServiceCIDR], NewList: api.NewList[networkingv1.ServiceCIDRList],
		Rules: api.For[*networkingv1.ServiceCIDR]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, c *networkingv1.ServiceCIDR) {
				c.Status = networkingv1.ServiceCIDRStatus{}
			},
			PrepareForUpdate: func(_ context.Context, c, old *networkingv1.ServiceCIDR) {
				c.Status = old.Status
			},
			Validate: func(c *networkingv1.ServiceCIDR) field.ErrorList {
				return validateServiceCIDR(&c.Spec, field.NewPath("spec", "cidrs"))
			},
			ValidateUpdate: validateServiceCIDRUpdate,
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("CIDRs", networkingv1.ServiceCIDRSpec{}.SwaggerDoc()["cidrs"]),
				table.Age(),
			},
			Cells: func(c *networkingv1.ServiceCIDR) []any {
				return []any{c.Name, strings.Join(c.Spec.CIDRs, ","), table.Since(c.CreationTimestamp)}
			},
		}.Rules(),
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, c, old *networkingv1.ServiceCIDR) {
				c.Spec = old.Spec
				metav1.ResetObjectMetaForStatus(&c.ObjectMeta, &old.ObjectMeta)
			}),
			ResetFields: []string{"metadata", "spec"},
		},
		AllowUnconditionalUpdate: true,
	}
}

func validateServiceCIDR(spec *networkingv1.ServiceCIDRSpec, path *field.Path) field.ErrorList {
	switch {
	case len(spec.CIDRs) == 0:
		return field.ErrorList{field.Required(path, "at least one CIDR required")}
	case len(spec.CIDRs) > 2:
		return field.ErrorList{field.Invalid(path, badvalue.Of(spec), "may only hold up to 2 values")}
	}
	var errs field.ErrorList
	for i, cidr := range spec.CIDRs {
		errs = append(errs, validation.IsValidCIDR(path.Index(i), cidr)...)
	}
	if len(spec.CIDRs) == 2 {
		first, second := netutils.IPFamilyOfCIDRString(spec.CIDRs[0]), netutils.IPFamilyOfCIDRString(spec.CIDRs[1])
		if first == second && first != netutils.IPFamilyUnknown {
			errs = append(errs, field.Invalid(path, spec.CIDRs, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"))
		}
	}
	return errs
}

// validateServiceCIDRUpdate allows nothing but a second family to be added.
func validateServiceCIDRUpdate(c, old *networkingv1.ServiceCIDR) field.ErrorList {
	path := field.NewPath("spec", "cidrs")
	now, was := c.Spec.CIDRs, old.Spec.CIDRs
	grows := len(was) == 1 && len(now) == 2
	if len(now) != len(was) && !grows {
		return field.ErrorList{field.Invalid(path, now, apivalidation.FieldImmutableErrorMsg)}
	}
	var errs field.ErrorList
	for i := range was {
		if now[i] != was[i] {
			errs = append(errs, field.Invalid(path.Index(i), now[i], apivalidation.FieldImmutableErrorMsg))
		}
	}
	if grows {
		errs = append(errs, validateServiceCIDR(&c.Spec, path)...)
	}
	return errs
}
