// SPDX-License-Identifier: Apache-2.0

package networking

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

// ingressClassAnnotation named the class before there was a field for it.
const ingressClassAnnotation = "kubernetes.io/ingress.class"

func ingress() *api.Kind {
	return &api.Kind{
		Group: networkingv1.GroupName, Name: "Ingress", Resource: "ingresses", Singular: "ingress",
		ShortNames: []string{"ing"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: networkingv1.SchemeGroupVersion,
			New:          api.New[networkingv1.Ingress], NewList: api.NewList[networkingv1.IngressList],
		}},
		Storage: networkingv1.SchemeGroupVersion,
		Prefix:  "/registry/ingress",
		New:     api.New[networkingv1.Ingress], NewList: api.NewList[networkingv1.IngressList],
		Rules: api.For[*networkingv1.Ingress]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, i *networkingv1.Ingress) {
				i.Status = networkingv1.IngressStatus{}
				i.Generation = 1
			},
			PrepareForUpdate: func(_ context.Context, i, old *networkingv1.Ingress) {
				i.Status = old.Status
				if !apiequality.Semantic.DeepEqual(i.Spec, old.Spec) {
					i.Generation = old.Generation + 1
				}
			},
			Validate: validateIngress,
			ValidateUpdate: func(i, old *networkingv1.Ingress) field.ErrorList {
				return validateIngressSpec(&i.Spec, field.NewPath("spec"), tolerated(&old.Spec))
			},
			Warnings: func(i, old *networkingv1.Ingress) []string {
				if _, set := i.Annotations[ingressClassAnnotation]; old == nil && set && i.Spec.IngressClassName == nil {
					return []string{fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", ingressClassAnnotation)}
				}
				return nil
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Class", "The name of the IngressClass resource that should be used for additional configuration"),
				table.String("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
				table.String("Address", "Address is a list containing ingress points for the load-balancer"),
				table.String("Ports", "Ports of TLS configurations that open"),
				table.Age(),
			},
			Cells: func(i *networkingv1.Ingress) []any {
				class, ports := "<none>", "80"
				if i.Spec.IngressClassName != nil {
					class = *i.Spec.IngressClassName
				}
				if len(i.Spec.TLS) != 0 {
					ports = "80, 443"
				}
				return []any{i.Name, class, ingressHosts(i.Spec.Rules), ingressAddresses(&i.Status.LoadBalancer), ports, table.Since(i.CreationTimestamp)}
			},
		}.Rules(),
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, i, old *networkingv1.Ingress) {
				i.Spec = old.Spec
			}),
			ValidateUpdate: api.Update(validateIngressStatus),
			Warnings:       api.Warn(ingressStatusWarnings),
			ResetFields:    []string{"spec"},
		},
		AllowUnconditionalUpdate: true,
	}
}

func ingressHosts(rules []networkingv1.IngressRule) string {
	const most = 3
	var hosts []string
	more := false
	for _, r := range rules {
		more = more || len(hosts) == most
		if !more && r.Host != "" {
			hosts = append(hosts, r.Host)
		}
	}
	switch text := strings.Join(hosts, ","); {
	case len(hosts) == 0:
		return "*"
	case more:
		return fmt.Sprintf("%s + %d more...", text, len(rules)-most)
	default:
		return text
	}
}

func ingressAddresses(status *networkingv1.IngressLoadBalancerStatus) string {
	var addresses []string
	for _, i := range status.Ingress {
		if i.IP != "" {
			addresses = append(addresses, i.IP)
		} else if i.Hostname != "" {
			addresses = append(addresses, i.Hostname)
		}
	}
	slices.Sort(addresses)
	return strings.Join(slices.Compact(addresses), ",")
}

// ingressTolerance is what an update lets stand because it was stored before.
type ingressTolerance struct {
	secretNames, wildcardRules bool
}

func tolerated(old *networkingv1.IngressSpec) ingressTolerance {
	var t ingressTolerance
	for _, tls := range old.TLS {
		t.secretNames = t.secretNames || len(secretNameErrors(tls.SecretName)) > 0
	}
	for i := range old.Rules {
		r := &old.Rules[i]
		t.wildcardRules = t.wildcardRules || strings.Contains(r.Host, "*") && len(validateIngressHTTP(r.HTTP, nil)) > 0
	}
	return t
}

func secretNameErrors(name string) []string {
	if name == "" {
		return nil
	}
	return apivalidation.NameIsDNSSubdomain(name, false)
}

func validateIngress(i *networkingv1.Ingress) field.ErrorList {
	errs := validateIngressSpec(&i.Spec, field.NewPath("spec"), ingressTolerance{})
	class, set := i.Annotations[ingressClassAnnotation]
	if set && i.Spec.IngressClassName != nil && class != *i.Spec.IngressClassName {
		errs = append(errs, field.Invalid(field.NewPath("annotations").Child(ingressClassAnnotation), class, "must match `ingressClassName` when both are specified"))
	}
	return errs
}

func validateIngressSpec(spec *networkingv1.IngressSpec, path *field.Path, allow ingressTolerance) field.ErrorList {
	var errs field.ErrorList
	if len(spec.Rules) == 0 && spec.DefaultBackend == nil {
		errs = append(errs, field.Invalid(path, badvalue.Of(spec.Rules), "either `defaultBackend` or `rules` must be specified"))
	}
	if spec.DefaultBackend != nil {
		errs = append(errs, validateIngressBackend(spec.DefaultBackend, path.Child("defaultBackend"))...)
	}
	for i := range spec.Rules {
		r, where := &spec.Rules[i], path.Child("rules").Index(i)
		if r.Host != "" {
			errs = append(errs, validateIngressHost(r.Host, where.Child("host"))...)
		}
		if !strings.Contains(r.Host, "*") || !allow.wildcardRules {
			errs = append(errs, validateIngressHTTP(r.HTTP, where.Child("http"))...)
		}
	}
	for i, tls := range spec.TLS {
		where := path.Child("tls").Index(i)
		for n, host := range tls.Hosts {
			errs = append(errs, rule.Messages(where.Child("hosts").Index(n), host, hostErrors(host))...)
		}
		if !allow.secretNames {
			errs = append(errs, rule.Messages(where.Child("secretName"), tls.SecretName, secretNameErrors(tls.SecretName))...)
		}
	}
	if class := spec.IngressClassName; class != nil {
		errs = append(errs, rule.Subdomain(*class, path.Child("ingressClassName"))...)
	}
	return errs
}

func hostErrors(host string) []string {
	if strings.Contains(host, "*") {
		return validation.IsWildcardDNS1123Subdomain(host)
	}
	return validation.IsDNS1123Subdomain(host)
}

func validateIngressHost(host string, path *field.Path) field.ErrorList {
	errs := rule.Messages(path, host, hostErrors(host))
	if netutils.ParseIPSloppy(host) != nil {
		errs = append(errs, field.Invalid(path, host, "must be a DNS name, not an IP address"))
	}
	return errs
}

func validateIngressHTTP(http *networkingv1.HTTPIngressRuleValue, path *field.Path) field.ErrorList {
	if http == nil {
		return nil
	}
	if len(http.Paths) == 0 {
		return field.ErrorList{field.Required(path.Child("paths"), "")}
	}
	var errs field.ErrorList
	for i := range http.Paths {
		errs = append(errs, validateIngressPath(&http.Paths[i], path.Child("paths").Index(i))...)
	}
	return errs
}

func validateIngressPath(p *networkingv1.HTTPIngressPath, path *field.Path) field.ErrorList {
	if p.PathType == nil {
		return field.ErrorList{field.Required(path.Child("pathType"), "pathType must be specified")}
	}
	var errs field.ErrorList
	invalid := func(detail string) {
		errs = append(errs, field.Invalid(path.Child("path"), p.Path, detail))
	}
	const exact, prefix, specific = networkingv1.PathTypeExact, networkingv1.PathTypePrefix, networkingv1.PathTypeImplementationSpecific
	switch absolute := strings.HasPrefix(p.Path, "/"); *p.PathType {
	case exact, prefix:
		if !absolute {
			invalid("must be an absolute path")
		}
		for _, bad := range []string{"//", "/./", "/../", "%2f", "%2F"} {
			if strings.Contains(p.Path, bad) {
				invalid(fmt.Sprintf("must not contain '%s'", bad))
			}
		}
		for _, bad := range []string{"/..", "/."} {
			if strings.HasSuffix(p.Path, bad) {
				invalid(fmt.Sprintf("cannot end with '%s'", bad))
			}
		}
	case specific:
		if p.Path != "" && !absolute {
			invalid("must be an absolute path")
		}
	default:
		errs = append(errs, field.NotSupported(path.Child("pathType"), *p.PathType, []networkingv1.PathType{exact, specific, prefix}))
	}
	return append(errs, validateIngressBackend(&p.Backend, path.Child("backend"))...)
}

func validateIngressBackend(backend *networkingv1.IngressBackend, path *field.Path) field.ErrorList {
	switch {
	case backend.Resource != nil && backend.Service != nil:
		return field.ErrorList{field.Invalid(path, "", "cannot set both resource and service backends")}
	case backend.Resource != nil:
		return validateLocalReference(backend.Resource, path.Child("resource"))
	case backend.Service != nil:
		return validateServiceBackend(backend.Service, path)
	}
	return field.ErrorList{field.Invalid(path, "", "resource or service backend is required")}
}

func validateServiceBackend(service *networkingv1.IngressServiceBackend, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if where := path.Child("service", "name"); service.Name == "" {
		errs = append(errs, field.Required(where, ""))
	} else {
		errs = append(errs, rule.Messages(where, service.Name, apivalidation.NameIsDNSLabel(service.Name, false))...)
	}
	switch port := service.Port; {
	case port.Name != "" && port.Number != 0:
		errs = append(errs, field.Invalid(path, "", "cannot set both port name & port number"))
	case port.Name != "":
		errs = append(errs, rule.Messages(path.Child("service", "port", "name"), port.Name, validation.IsValidPortName(port.Name))...)
	case port.Number != 0:
		errs = append(errs, rule.Messages(path.Child("service", "port", "number"), port.Number, validation.IsValidPortNum(int(port.Number)))...)
	default:
		errs = append(errs, field.Required(path, "port name or number is required"))
	}
	return errs
}

func validateLocalReference(ref *corev1.TypedLocalObjectReference, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if ref.APIGroup != nil {
		errs = append(errs, rule.Subdomain(*ref.APIGroup, path.Child("apiGroup"))...)
	}
	errs = append(errs, validateSegment(ref.Kind, path.Child("kind"))...)
	return append(errs, validateSegment(ref.Name, path.Child("name"))...)
}

// validateSegment requires a name that can stand in a URL's path.
func validateSegment(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return rule.Messages(path, name, content.IsPathSegmentName(name))
}

func validateIngressStatus(i, old *networkingv1.Ingress) field.ErrorList {
	var existing []string
	for _, point := range old.Status.LoadBalancer.Ingress {
		if point.IP != "" {
			existing = append(existing, point.IP)
		}
	}
	var errs field.ErrorList
	path := field.NewPath("status", "loadBalancer", "ingress")
	for n, point := range i.Status.LoadBalancer.Ingress {
		if point.IP != "" {
			errs = append(errs, validation.IsValidIPForLegacyField(path.Index(n).Child("ip"), point.IP, true, existing)...)
		}
		if where := path.Index(n).Child("hostname"); point.Hostname != "" {
			errs = append(errs, rule.Subdomain(point.Hostname, where)...)
			if netutils.ParseIPSloppy(point.Hostname) != nil {
				errs = append(errs, field.Invalid(where, point.Hostname, "must be a DNS name, not an IP address"))
			}
		}
	}
	return errs
}

func ingressStatusWarnings(i, _ *networkingv1.Ingress) []string {
	var warnings []string
	path := field.NewPath("status", "loadBalancer", "ingress")
	for n, point := range i.Status.LoadBalancer.Ingress {
		if point.IP != "" {
			warnings = append(warnings, validation.GetWarningsForIP(path.Index(n), point.IP)...)
		}
	}
	return warnings
}
