// SPDX-License-Identifier: Apache-2.0

package networking

import (
	"context"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func networkPolicy() *api.Kind {
	return &api.Kind{
		Group: networkingv1.GroupName, Name: "NetworkPolicy", Resource: "networkpolicies", Singular: "networkpolicy",
		ShortNames: []string{"netpol"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: networkingv1.SchemeGroupVersion,
			New:          api.New[networkingv1.NetworkPolicy], NewList: api.NewList[networkingv1.NetworkPolicyList],
			Default: api.Default(defaultNetworkPolicy),
		}},
		Storage: networkingv1.SchemeGroupVersion,
		Prefix:  "/registry/networkpolicies",
		New:     api.New[networkingv1.NetworkPolicy], NewList: api.NewList[networkingv1.NetworkPolicyList],
		Rules: api.For[*networkingv1.NetworkPolicy]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, p *networkingv1.NetworkPolicy) {
				p.Generation = 1
			},
			PrepareForUpdate: func(_ context.Context, p, old *networkingv1.NetworkPolicy) {
				if !reflect.DeepEqual(p.Spec, old.Spec) {
					p.Generation = old.Generation + 1
				}
			},
			Validate: func(p *networkingv1.NetworkPolicy) field.ErrorList {
				return policyCheck{}.spec(&p.Spec, field.NewPath("spec"))
			},
			ValidateUpdate: func(p, old *networkingv1.NetworkPolicy) field.ErrorList {
				return tolerating(&old.Spec).spec(&p.Spec, field.NewPath("spec"))
			},
			Warnings: func(p, _ *networkingv1.NetworkPolicy) []string {
				var warnings []string
				eachBlock(&p.Spec, func(block *networkingv1.IPBlock, path *field.Path) {
					warnings = append(warnings, validation.GetWarningsForCIDR(path.Child("cidr"), block.CIDR)...)
					for i, except := range block.Except {
						warnings = append(warnings, validation.GetWarningsForCIDR(path.Child("except").Index(i), except)...)
					}
				})
				return warnings
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Pod-Selector", networkingv1.NetworkPolicySpec{}.SwaggerDoc()["podSelector"]),
				table.Age(),
			},
			Cells: func(p *networkingv1.NetworkPolicy) []any {
				return []any{p.Name, metav1.FormatLabelSelector(&p.Spec.PodSelector), table.Since(p.CreationTimestamp)}
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
	}
}

func defaultNetworkPolicy(p *networkingv1.NetworkPolicy) {
	for i := range p.Spec.Ingress {
		defaultPolicyPorts(p.Spec.Ingress[i].Ports)
	}
	for i := range p.Spec.Egress {
		defaultPolicyPorts(p.Spec.Egress[i].Ports)
	}
	if len(p.Spec.PolicyTypes) == 0 {
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(p.Spec.Egress) != 0 {
			p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
}

func defaultPolicyPorts(ports []networkingv1.NetworkPolicyPort) {
	for i := range ports {
		if ports[i].Protocol == nil {
			tcp := corev1.ProtocolTCP
			ports[i].Protocol = &tcp
		}
	}
}

// eachBlock calls f for every IP block of a policy.
func eachBlock(spec *networkingv1.NetworkPolicySpec, f func(*networkingv1.IPBlock, *field.Path)) {
	peers := func(list []networkingv1.NetworkPolicyPeer, path *field.Path) {
		for i := range list {
			if list[i].IPBlock != nil {
				f(list[i].IPBlock, path.Index(i).Child("ipBlock"))
			}
		}
	}
	path := field.NewPath("spec")
	for i := range spec.Ingress {
		peers(spec.Ingress[i].From, path.Child("ingress").Index(i).Child("from"))
	}
	for i := range spec.Egress {
		peers(spec.Egress[i].To, path.Child("egress").Index(i).Child("to"))
	}
}

// policyCheck validates a NetworkPolicy, letting stand what was stored before.
type policyCheck struct {
	selectors metavalidation.LabelSelectorValidationOptions
	cidrs     []string
}

func tolerating(old *networkingv1.NetworkPolicySpec) policyCheck {
	var c policyCheck
	c.selectors.AllowInvalidLabelValueInSelector = len(metavalidation.ValidateLabelSelector(&old.PodSelector, c.selectors, nil)) > 0
	eachBlock(old, func(block *networkingv1.IPBlock, _ *field.Path) {
		c.cidrs = append(append(c.cidrs, block.CIDR), block.Except...)
	})
	return c
}

func (c policyCheck) spec(spec *networkingv1.NetworkPolicySpec, path *field.Path) field.ErrorList {
	errs := metavalidation.ValidateLabelSelector(&spec.PodSelector, c.selectors, path.Child("podSelector"))
	for i := range spec.Ingress {
		where := path.Child("ingress").Index(i)
		errs = append(errs, validatePolicyPorts(spec.Ingress[i].Ports, where.Child("ports"))...)
		errs = append(errs, c.peers(spec.Ingress[i].From, where.Child("from"))...)
	}
	for i := range spec.Egress {
		where := path.Child("egress").Index(i)
		errs = append(errs, validatePolicyPorts(spec.Egress[i].Ports, where.Child("ports"))...)
		errs = append(errs, c.peers(spec.Egress[i].To, where.Child("to"))...)
	}
	if len(spec.PolicyTypes) > 2 {
		return append(errs, field.Invalid(path.Child("policyTypes"), spec.PolicyTypes, "may not specify more than two policyTypes"))
	}
	for i, t := range spec.PolicyTypes {
		if t != networkingv1.PolicyTypeIngress && t != networkingv1.PolicyTypeEgress {
			errs = append(errs, field.NotSupported(path.Child("policyTypes").Index(i), t, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}))
		}
	}
	return errs
}

func validatePolicyPorts(ports []networkingv1.NetworkPolicyPort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range ports {
		errs = append(errs, validatePolicyPort(&ports[i], path.Index(i))...)
	}
	return errs
}

func validatePolicyPort(port *networkingv1.NetworkPolicyPort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	protocols := []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
	if port.Protocol != nil && !slices.Contains(protocols, *port.Protocol) {
		errs = append(errs, field.NotSupported(path.Child("protocol"), *port.Protocol, protocols))
	}
	end := path.Child("endPort")
	switch {
	case port.Port == nil:
		if port.EndPort != nil {
			errs = append(errs, field.Invalid(end, *port.EndPort, "may not be specified when `port` is not specified"))
		}
	case port.Port.Type == intstr.Int:
		errs = append(errs, rule.Messages(path.Child("port"), port.Port.IntVal, validation.IsValidPortNum(int(port.Port.IntVal)))...)
		if port.EndPort == nil {
			break
		}
		if *port.EndPort < port.Port.IntVal {
			errs = append(errs, field.Invalid(end, *port.EndPort, "must be greater than or equal to `port`"))
		}
		errs = append(errs, rule.Messages(end, *port.EndPort, validation.IsValidPortNum(int(*port.EndPort)))...)
	default:
		if port.EndPort != nil {
			errs = append(errs, field.Invalid(end, *port.EndPort, "may not be specified when `port` is non-numeric"))
		}
		errs = append(errs, rule.Messages(path.Child("port"), port.Port.StrVal, validation.IsValidPortName(port.Port.StrVal))...)
	}
	return errs
}

func (c policyCheck) peers(peers []networkingv1.NetworkPolicyPeer, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range peers {
		peer, where := &peers[i], path.Index(i)
		if peer.PodSelector != nil {
			errs = append(errs, metavalidation.ValidateLabelSelector(peer.PodSelector, c.selectors, where.Child("podSelector"))...)
		}
		if peer.NamespaceSelector != nil {
			errs = append(errs, metavalidation.ValidateLabelSelector(peer.NamespaceSelector, c.selectors, where.Child("namespaceSelector"))...)
		}
		if peer.IPBlock != nil {
			errs = append(errs, c.block(peer.IPBlock, where.Child("ipBlock"))...)
		}
		switch selects := peer.PodSelector != nil || peer.NamespaceSelector != nil; {
		case !selects && peer.IPBlock == nil:
			errs = append(errs, field.Required(where, "must specify a peer"))
		case selects && peer.IPBlock != nil:
			errs = append(errs, field.Forbidden(where, "may not specify both ipBlock and another peer"))
		}
	}
	return errs
}

func (c policyCheck) block(block *networkingv1.IPBlock, path *field.Path) field.ErrorList {
	if block.CIDR == "" {
		return field.ErrorList{field.Required(path.Child("cidr"), "")}
	}
	errs := validation.IsValidCIDRForLegacyField(path.Child("cidr"), block.CIDR, true, c.cidrs)
	_, whole, err := netutils.ParseCIDRSloppy(block.CIDR)
	if err != nil {
		return errs // reported above
	}
	for i, text := range block.Except {
		where := path.Child("except").Index(i)
		errs = append(errs, validation.IsValidCIDRForLegacyField(where, text, true, c.cidrs)...)
		_, except, err := netutils.ParseCIDRSloppy(text)
		if err != nil {
			continue
		}
		wholeBits, _ := whole.Mask.Size()
		exceptBits, _ := except.Mask.Size()
		if !whole.Contains(except.IP) || wholeBits >= exceptBits {
			errs = append(errs, field.Invalid(where, text, "must be a strict subset of `cidr`"))
		}
	}
	return errs
}
