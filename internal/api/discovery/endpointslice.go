// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

const (
	maxTopologyLabels = 16
	maxAddresses      = 100
	maxPorts          = 20000
	maxEndpoints      = 1000
	maxHints          = 8
)

func endpointSlice() *api.Kind {
	doc := discoveryv1.EndpointSlice{}.SwaggerDoc()
	return &api.Kind{
		Group: discoveryv1.GroupName, Name: "EndpointSlice", Resource: "endpointslices", Singular: "endpointslice",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: discoveryv1.SchemeGroupVersion,
			New:          api.New[discoveryv1.EndpointSlice], NewList: api.NewList[discoveryv1.EndpointSliceList],
			Default: api.Default(defaultEndpointSlice),
		}},
		Storage: discoveryv1.SchemeGroupVersion,
		Prefix:  "/registry/endpointslices",
		New:     api.New[discoveryv1.EndpointSlice], NewList: api.NewList[discoveryv1.EndpointSliceList],
		Rules: api.For[*discoveryv1.EndpointSlice]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, s *discoveryv1.EndpointSlice) {
				s.Generation = 1
				dropTopology(s, nil)
			},
			PrepareForUpdate: func(_ context.Context, s, old *discoveryv1.EndpointSlice) {
				if !sameSlice(s, old) {
					s.Generation = old.Generation + 1
				}
				dropTopology(s, old)
			},
			Validate: func(s *discoveryv1.EndpointSlice) field.ErrorList { return validateSlice(s, nil) },
			ValidateUpdate: func(s, old *discoveryv1.EndpointSlice) field.ErrorList {
				errs := validateSlice(s, old)
				return append(errs, rule.Unchanged(s.AddressType, old.AddressType, field.NewPath("addressType"))...)
			},
			Warnings: sliceWarnings,
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("AddressType", doc["addressType"]),
				table.String("Ports", doc["ports"]),
				table.String("Endpoints", doc["endpoints"]),
				table.Age(),
			},
			Cells: func(s *discoveryv1.EndpointSlice) []any {
				return []any{s.Name, string(s.AddressType), portsCell(s.Ports), addressesCell(s.Endpoints), table.Since(s.CreationTimestamp)}
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
	}
}

func defaultEndpointSlice(s *discoveryv1.EndpointSlice) {
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Name == nil {
			p.Name = new(string)
		}
		if p.Protocol == nil {
			tcp := corev1.ProtocolTCP
			p.Protocol = &tcp
		}
	}
}

func sameSlice(a, b *discoveryv1.EndpointSlice) bool {
	return a.AddressType == b.AddressType && apiequality.Semantic.DeepEqual(a.Endpoints, b.Endpoints) &&
		apiequality.Semantic.DeepEqual(a.Ports, b.Ports) && apiequality.Semantic.DeepEqual(a.Labels, b.Labels)
}

// dropTopology removes the topology that version v1beta1 had, turning the host
// name that stood in it before into nodeName.
func dropTopology(s, old *discoveryv1.EndpointSlice) {
	nodes := sets.New[string]()
	if old != nil {
		if apiequality.Semantic.DeepEqual(s.Endpoints, old.Endpoints) {
			return
		}
		for _, ep := range old.Endpoints {
			nodes.Insert(ep.DeprecatedTopology[corev1.LabelHostname])
		}
	}
	for i := range s.Endpoints {
		ep := &s.Endpoints[i]
		node, found := ep.DeprecatedTopology[corev1.LabelHostname]
		if ep.NodeName == nil && found && nodes.Has(node) && len(apivalidation.NameIsDNSSubdomain(node, false)) == 0 {
			ep.NodeName = &node
		}
		ep.DeprecatedTopology = nil
	}
}

func sliceWarnings(s, old *discoveryv1.EndpointSlice) []string {
	var warnings []string
	if old == nil && s.AddressType == discoveryv1.AddressTypeFQDN {
		warnings = append(warnings, "spec.addressType: FQDN endpoints are deprecated")
	}
	switch s.Labels[discoveryv1.LabelManagedBy] {
	case "endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io":
		return warnings // the controllers cannot help what users wrote elsewhere
	}
	for i := range s.Endpoints {
		for n, address := range s.Endpoints[i].Addresses {
			path := field.NewPath("endpoints").Index(i).Child("addresses").Index(n)
			warnings = append(warnings, validation.GetWarningsForIP(path, address)...)
		}
	}
	return warnings
}

func portsCell(ports []discoveryv1.EndpointPort) string {
	var list []string
	for _, p := range ports {
		switch {
		case p.Port != nil:
			list = append(list, strconv.Itoa(int(*p.Port)))
		case p.Name != nil:
			list = append(list, *p.Name)
		default:
			list = append(list, "*")
		}
	}
	return firstThree(list)
}

func addressesCell(endpoints []discoveryv1.Endpoint) string {
	var list []string
	for _, ep := range endpoints {
		list = append(list, ep.Addresses...)
	}
	return firstThree(list)
}

func firstThree(list []string) string {
	switch n := len(list); {
	case n == 0:
		return "<unset>"
	case n > 3:
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:3], ","), n-3)
	default:
		return strings.Join(list, ",")
	}
}

func validateSlice(s, old *discoveryv1.EndpointSlice) field.ErrorList {
	errs := rule.OneOfRequired(s.AddressType, field.NewPath("addressType"), discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6)
	errs = append(errs, validatePorts(s.Ports, field.NewPath("ports"))...)
	// Endpoints that were stored before a rule existed may stand.
	if old == nil || !apiequality.Semantic.DeepEqual(s.Endpoints, old.Endpoints) {
		errs = append(errs, validateEndpoints(s.Endpoints, s.AddressType, field.NewPath("endpoints"))...)
	}
	return errs
}

func validatePorts(ports []discoveryv1.EndpointPort, path *field.Path) field.ErrorList {
	if len(ports) > maxPorts {
		return field.ErrorList{field.TooMany(path, len(ports), maxPorts)}
	}
	var errs field.ErrorList
	names := sets.New[string]()
	for i := range ports {
		p, where := &ports[i], path.Index(i)
		name := ""
		if p.Name != nil {
			name = *p.Name
		}
		if name != "" {
			errs = append(errs, rule.Label(name, where.Child("name"))...)
		}
		if names.Has(name) {
			errs = append(errs, field.Duplicate(where.Child("name"), name))
		}
		names.Insert(name)
		if p.Protocol == nil {
			errs = append(errs, field.Required(where.Child("protocol"), ""))
		} else {
			errs = append(errs, rule.OneOf(*p.Protocol, where.Child("protocol"), corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		}
		if p.AppProtocol != nil {
			errs = append(errs, rule.QualifiedName(*p.AppProtocol, where.Child("appProtocol"))...)
		}
	}
	return errs
}

func validateEndpoints(endpoints []discoveryv1.Endpoint, family discoveryv1.AddressType, path *field.Path) field.ErrorList {
	if len(endpoints) > maxEndpoints {
		return field.ErrorList{field.TooMany(path, len(endpoints), maxEndpoints)}
	}
	var errs field.ErrorList
	for i := range endpoints {
		ep, where := &endpoints[i], path.Index(i)
		errs = append(errs, validateAddresses(ep.Addresses, family, where.Child("addresses"))...)
		if ep.NodeName != nil {
			errs = append(errs, rule.Subdomain(*ep.NodeName, where.Child("nodeName"))...)
		}
		topology := where.Child("deprecatedTopology")
		if n := len(ep.DeprecatedTopology); n > maxTopologyLabels {
			errs = append(errs, field.TooMany(topology, n, maxTopologyLabels))
		}
		errs = append(errs, metavalidation.ValidateLabels(ep.DeprecatedTopology, topology)...)
		if ep.Hostname != nil {
			errs = append(errs, rule.Label(*ep.Hostname, where.Child("hostname"))...)
		}
		if ep.Hints != nil {
			errs = append(errs, validateHints(ep.Hints, where.Child("hints"))...)
		}
	}
	return errs
}

func validateAddresses(addresses []string, family discoveryv1.AddressType, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch n := len(addresses); {
	case n == 0:
		errs = append(errs, field.Required(path, ""))
	case n > maxAddresses:
		errs = append(errs, field.TooMany(path, n, maxAddresses))
	}
	for i, address := range addresses {
		where := path.Index(i)
		switch family {
		case discoveryv1.AddressTypeIPv4:
			errs = append(errs, validateAddress(address, where, netutils.IsIPv4String, path, "must be an IPv4 address",
				validation.IsValidIPForLegacyField(where, address, true, nil))...)
		case discoveryv1.AddressTypeIPv6:
			errs = append(errs, validateAddress(address, where, netutils.IsIPv6String, path, "must be an IPv6 address",
				validation.IsValidIP(where, address))...)
		case discoveryv1.AddressTypeFQDN:
			errs = append(errs, validation.IsFullyQualifiedDomainName(where, address)...)
		}
	}
	return errs
}

// validateAddress reports malformed if there is any, else an address of the
// other family (at the list's path) or one that no endpoint can have.
func validateAddress(address string, path *field.Path, isFamily func(string) bool, list *field.Path, detail string, malformed field.ErrorList) field.ErrorList {
	if len(malformed) > 0 {
		return malformed
	}
	var errs field.ErrorList
	if !isFamily(address) {
		errs = append(errs, field.Invalid(list, address, detail))
	}
	return append(errs, rule.NonSpecialIP(address, path)...)
}

func validateHints(hints *discoveryv1.EndpointHints, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	zones, nodes := path.Child("forZones"), path.Child("forNodes")
	if n := len(hints.ForZones); n > maxHints {
		return field.ErrorList{field.TooMany(zones, n, maxHints)}
	}
	seen := sets.New[string]()
	for i, zone := range hints.ForZones {
		where := zones.Index(i).Child("name")
		if seen.Has(zone.Name) {
			errs = append(errs, field.Duplicate(where, zone.Name))
		}
		seen.Insert(zone.Name)
		errs = append(errs, rule.Messages(where, zone.Name, validation.IsValidLabelValue(zone.Name))...)
	}
	if n := len(hints.ForNodes); n > maxHints {
		return append(errs, field.TooMany(nodes, n, maxHints))
	}
	seen = sets.New[string]()
	for i, node := range hints.ForNodes {
		where := nodes.Index(i).Child("name")
		if seen.Has(node.Name) {
			errs = append(errs, field.Duplicate(where, node.Name))
		}
		seen.Insert(node.Name)
		errs = append(errs, rule.Subdomain(node.Name, where)...)
	}
	return errs
}
