// SPDX-License-Identifier: Apache-2.0

package core

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/podspec"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func endpoints() *api.Kind {
	return &api.Kind{
		Name: "Endpoints", Resource: "endpoints", Singular: "endpoints",
		ShortNames: []string{"ep"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.Endpoints], NewList: api.NewList[corev1.EndpointsList],
			Default:     api.Default(defaultEndpoints),
			Deprecated:  33,
			Replacement: schema.GroupVersionKind{Group: discoveryv1.GroupName, Version: "v1", Kind: "EndpointSlice"},
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/services/endpoints",
		New:     api.New[corev1.Endpoints], NewList: api.NewList[corev1.EndpointsList],
		Rules: api.For[*corev1.Endpoints]{
			ValidateName:   apivalidation.NameIsDNSSubdomain,
			Validate:       func(e *corev1.Endpoints) field.ErrorList { return validateSubsets(e, nil) },
			ValidateUpdate: validateSubsets,
			Warnings:       endpointsWarnings,
			Columns: []metav1.TableColumnDefinition{
				table.Name(), table.String("Endpoints", corev1.Endpoints{}.SwaggerDoc()["subsets"]), table.Age(),
			},
			Cells: func(e *corev1.Endpoints) []any {
				return []any{e.Name, formatEndpoints(e.Subsets), table.Since(e.CreationTimestamp)}
			},
		}.Rules(),
		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,
	}
}

func defaultEndpoints(e *corev1.Endpoints) {
	for i := range e.Subsets {
		for j := range e.Subsets[i].Ports {
			if port := &e.Subsets[i].Ports[j]; port.Protocol == "" {
				port.Protocol = corev1.ProtocolTCP
			}
		}
	}
}

// validateSubsets checks the addresses; those of old may stay as they are. old
// is nil on create.
func validateSubsets(e, old *corev1.Endpoints) field.ErrorList {
	if old != nil && apiequality.Semantic.DeepEqual(e.Subsets, old.Subsets) {
		return nil
	}
	var stored []string
	if old != nil {
		for _, s := range old.Subsets {
			for _, a := range append(append([]corev1.EndpointAddress(nil), s.Addresses...), s.NotReadyAddresses...) {
				stored = append(stored, a.IP)
			}
		}
	}
	var errs field.ErrorList
	for i := range e.Subsets {
		s, p := &e.Subsets[i], field.NewPath("subsets").Index(i)
		if len(s.Addresses) == 0 && len(s.NotReadyAddresses) == 0 {
			errs = append(errs, field.Required(p, "must specify `addresses` or `notReadyAddresses`"))
		}
		for j := range s.Addresses {
			errs = append(errs, validateEndpointAddress(&s.Addresses[j], stored, p.Child("addresses").Index(j))...)
		}
		for j := range s.NotReadyAddresses {
			errs = append(errs, validateEndpointAddress(&s.NotReadyAddresses[j], stored, p.Child("notReadyAddresses").Index(j))...)
		}
		for j := range s.Ports {
			errs = append(errs, validateEndpointPort(&s.Ports[j], len(s.Ports) > 1, p.Child("ports").Index(j))...)
		}
	}
	return errs
}

func validateEndpointAddress(a *corev1.EndpointAddress, stored []string, p *field.Path) field.ErrorList {
	errs := podspec.LegacyIP(p.Child("ip"), a.IP, stored...)
	if a.Hostname != "" {
		errs = append(errs, rule.Label(a.Hostname, p.Child("hostname"))...)
	}
	if a.NodeName != nil {
		errs = append(errs, rule.Messages(p.Child("nodeName"), *a.NodeName, apivalidation.NameIsDNSSubdomain(*a.NodeName, false))...)
	}
	return append(errs, rule.NonSpecialIP(a.IP, p.Child("ip"))...)
}

func validateEndpointPort(port *corev1.EndpointPort, needName bool, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if port.Name != "" {
		errs = append(errs, rule.Label(port.Name, p.Child("name"))...)
	} else if needName {
		errs = append(errs, field.Required(p.Child("name"), ""))
	}
	errs = append(errs, rule.Messages(p.Child("port"), port.Port, validation.IsValidPortNum(int(port.Port)))...)
	errs = append(errs, podspec.Protocol(port.Protocol, p.Child("protocol"))...)
	if port.AppProtocol != nil {
		errs = append(errs, rule.QualifiedName(*port.AppProtocol, p.Child("appProtocol"))...)
	}
	return errs
}

func endpointsWarnings(e, _ *corev1.Endpoints) []string {
	var out []string
	for i, s := range e.Subsets {
		p := field.NewPath("subsets").Index(i)
		for j, a := range s.Addresses {
			out = append(out, validation.GetWarningsForIP(p.Child("addresses").Index(j).Child("ip"), a.IP)...)
		}
		for j, a := range s.NotReadyAddresses {
			out = append(out, validation.GetWarningsForIP(p.Child("notReadyAddresses").Index(j).Child("ip"), a.IP)...)
		}
	}
	return out
}

// formatEndpoints lists the first ready addresses.
func formatEndpoints(subsets []corev1.EndpointSubset) string {
	const shown = 3
	var list []string
	count := 0
	for i := range subsets {
		s := &subsets[i]
		if len(s.Ports) == 0 {
			for _, a := range s.Addresses {
				if count++; count <= shown {
					list = append(list, a.IP)
				}
			}
			continue
		}
		for _, port := range s.Ports {
			for _, a := range s.Addresses {
				if count++; count <= shown {
					list = append(list, net.JoinHostPort(a.IP, strconv.Itoa(int(port.Port))))
				}
			}
		}
	}
	if count == 0 {
		return "<none>"
	}
	out := strings.Join(list, ",")
	if count > shown {
		out += fmt.Sprintf(" + %d more...", count-shown)
	}
	return out
}
