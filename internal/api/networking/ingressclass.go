// SPDX-License-Identifier: Apache-2.0

package networking

import (
	"context"

	networkingv1 "k8s.io/api/networking/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

const maxControllerLength = 250

func ingressClass() *api.Kind {
	return &api.Kind{
		Group: networkingv1.GroupName, Name: "IngressClass", Resource: "ingressclasses", Singular: "ingressclass",
		Versions: []api.Version{{
			GroupVersion: networkingv1.SchemeGroupVersion,
			New:          api.New[networkingv1.IngressClass], NewList: api.NewList[networkingv1.IngressClassList],
			Default: api.Default(defaultIngressClass),
		}},
		Storage: networkingv1.SchemeGroupVersion,
		Prefix:  "/registry/ingressclasses",
		New:     api.New[networkingv1.IngressClass], NewList: api.NewList[networkingv1.IngressClassList],
		Rules: api.For[*networkingv1.IngressClass]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, c *networkingv1.IngressClass) {
				c.Generation = 1
			},
			PrepareForUpdate: func(_ context.Context, c, old *networkingv1.IngressClass) {
				if !apiequality.Semantic.DeepEqual(c.Spec, old.Spec) {
					c.Generation = old.Generation + 1
				}
			},
			Validate: func(c *networkingv1.IngressClass) field.ErrorList {
				return validateIngressClassSpec(&c.Spec, field.NewPath("spec"))
			},
			ValidateUpdate: func(c, old *networkingv1.IngressClass) field.ErrorList {
				path := field.NewPath("spec")
				errs := apivalidation.ValidateImmutableField(c.Spec.Controller, old.Spec.Controller, path.Child("controller"))
				return append(errs, validateIngressClassSpec(&c.Spec, path)...)
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Controller", "Controller that is responsible for handling this class"),
				table.String("Parameters", "A reference to a resource with additional parameters"),
				table.Age(),
			},
			Cells: func(c *networkingv1.IngressClass) []any {
				name, parameters := c.Name, "<none>"
				if c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true" {
					name += " (default)"
				}
				if p := c.Spec.Parameters; p != nil {
					parameters = p.Kind
					if p.APIGroup != nil {
						parameters += "." + *p.APIGroup
					}
					parameters += "/" + p.Name
				}
				return []any{name, c.Spec.Controller, parameters, table.Since(c.CreationTimestamp)}
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
	}
}

func defaultIngressClass(c *networkingv1.IngressClass) {
	if p := c.Spec.Parameters; p != nil && p.Scope == nil {
		scope := networkingv1.IngressClassParametersReferenceScopeCluster
		p.Scope = &scope
	}
}

func validateIngressClassSpec(spec *networkingv1.IngressClassSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(spec.Controller) > maxControllerLength {
		errs = append(errs, field.TooLong(path.Child("controller"), "", maxControllerLength))
	}
	errs = append(errs, validation.IsDomainPrefixedPath(path.Child("controller"), spec.Controller)...)
	if spec.Parameters != nil {
		errs = append(errs, validateParameters(spec.Parameters, path.Child("parameters"))...)
	}
	return errs
}

func validateParameters(p *networkingv1.IngressClassParametersReference, path *field.Path) field.ErrorList {
	const namespaced, cluster = networkingv1.IngressClassParametersReferenceScopeNamespace, networkingv1.IngressClassParametersReferenceScopeCluster
	var errs field.ErrorList
	if p.APIGroup != nil {
		errs = append(errs, rule.Subdomain(*p.APIGroup, path.Child("apiGroup"))...)
	}
	errs = append(errs, validateSegment(p.Kind, path.Child("kind"))...)
	errs = append(errs, validateSegment(p.Name, path.Child("name"))...)
	var scope string
	if p.Scope == nil {
		errs = append(errs, field.Required(path.Child("scope"), ""))
	} else {
		scope = *p.Scope
	}
	switch where := path.Child("namespace"); {
	case scope != namespaced && scope != cluster:
		errs = append(errs, field.NotSupported(path.Child("scope"), scope, []string{cluster, namespaced}))
	case scope == cluster && p.Namespace != nil:
		errs = append(errs, field.Forbidden(where, "`parameters.scope` is set to 'Cluster'"))
	case scope == namespaced && p.Namespace == nil:
		errs = append(errs, field.Required(where, "`parameters.scope` is set to 'Namespace'"))
	case scope == namespaced:
		errs = append(errs, rule.Messages(where, *p.Namespace, apivalidation.ValidateNamespaceName(*p.Namespace, false))...)
	}
	return errs
}
