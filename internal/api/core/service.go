// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

func service() *api.Kind {
	spec := corev1.ServiceSpec{}.SwaggerDoc()
	return &api.Kind{
		Name: "Service", Resource: "services", Singular: "service",
		ShortNames: []string{"svc"}, Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.Service], NewList: api.NewList[corev1.ServiceList],
			Default: api.Default(defaultService),
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/services/specs",
		New:     api.New[corev1.Service], NewList: api.NewList[corev1.ServiceList],
		Rules: api.For[*corev1.Service]{
			ValidateName: apivalidation.NameIsDNSLabel,
			PrepareForCreate: func(_ context.Context, s *corev1.Service) {
				s.Status = corev1.ServiceStatus{}
				if s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0 {
					s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
				}
			},
			PrepareForUpdate: prepareServiceUpdate,
			Validate:         validateNewService,
			ValidateUpdate:   validateServiceUpdate,
			Warnings:         serviceWarnings,
			Fields: func(s *corev1.Service) fields.Set {
				return fields.Set{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Type", spec["type"]),
				table.String("Cluster-IP", spec["clusterIP"]),
				table.String("External-IP", spec["externalIPs"]),
				table.String("Port(s)", spec["ports"]),
				table.Age(),
				table.Wide(table.String("Selector", spec["selector"])),
			},
			Cells: serviceCells,
		}.Rules(),
		Status: &api.Subresource{
			Name:             "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, s, old *corev1.Service) { s.Spec = old.Spec }),
			ValidateUpdate:   api.Update(validateServiceStatus),
			Warnings:         api.Warn(serviceStatusWarnings),
			ResetFields:      []string{"spec"},
		},
		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
		ResetFields:              []string{"status"},
	}
}

func defaultService(s *corev1.Service) {
	spec := &s.Spec
	if spec.SessionAffinity == "" {
		spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	switch spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		spec.SessionAffinityConfig = nil
	case corev1.ServiceAffinityClientIP:
		if c := spec.SessionAffinityConfig; c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{
				ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr.To(corev1.DefaultClientIPServiceAffinitySeconds)},
			}
		}
	}
	if spec.Type == "" {
		spec.Type = corev1.ServiceTypeClusterIP
	}
	for i := range spec.Ports {
		port := &spec.Ports[i]
		if port.Protocol == "" {
			port.Protocol = corev1.ProtocolTCP
		}
		if port.TargetPort == (intstr.IntOrString{}) || port.TargetPort == intstr.FromString("") {
			port.TargetPort = intstr.FromInt32(port.Port)
		}
	}
	if externallyAccessible(spec) && spec.ExternalTrafficPolicy == "" {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	if spec.InternalTrafficPolicy == nil && hasNodeTraffic(spec.Type) {
		spec.InternalTrafficPolicy = ptr.To(corev1.ServiceInternalTrafficPolicyCluster)
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer {
		if spec.AllocateLoadBalancerNodePorts == nil {
			spec.AllocateLoadBalancerNodePorts = ptr.To(true)
		}
		for i := range s.Status.LoadBalancer.Ingress {
			if ingress := &s.Status.LoadBalancer.Ingress[i]; ingress.IP != "" && ingress.IPMode == nil {
				ingress.IPMode = ptr.To(corev1.LoadBalancerIPModeVIP)
			}
		}
	}
}

// hasNodeTraffic says whether nodes forward to Services of the type.
func hasNodeTraffic(t corev1.ServiceType) bool {
	return t == corev1.ServiceTypeClusterIP || t == corev1.ServiceTypeNodePort || t == corev1.ServiceTypeLoadBalancer
}

// externallyAccessible says whether traffic from outside the cluster reaches
// the Service through its nodes.
func externallyAccessible(spec *corev1.ServiceSpec) bool {
	return spec.Type == corev1.ServiceTypeLoadBalancer || spec.Type == corev1.ServiceTypeNodePort ||
		spec.Type == corev1.ServiceTypeClusterIP && len(spec.ExternalIPs) > 0
}

func needsHealthCheck(spec *corev1.ServiceSpec) bool {
	return spec.Type == corev1.ServiceTypeLoadBalancer && spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// needsNodePort says whether a node port may be given to each port.
func needsNodePort(spec *corev1.ServiceSpec) bool {
	return spec.Type == corev1.ServiceTypeNodePort || spec.Type == corev1.ServiceTypeLoadBalancer
}

func isHeadless(spec *corev1.ServiceSpec) bool {
	return len(spec.ClusterIPs) == 1 && spec.ClusterIPs[0] == corev1.ClusterIPNone
}

// prepareServiceUpdate keeps what was allocated for a Service that asks for it
// no differently, and drops what a change of the type leaves behind.
func prepareServiceUpdate(_ context.Context, s, old *corev1.Service) {
	s.Status = old.Status
	keepAllocated(&s.Spec, &old.Spec)
	followClusterIP(&s.Spec, &old.Spec)
	dropLeftovers(&s.Spec, &old.Spec)
}

func keepAllocated(spec, old *corev1.ServiceSpec) {
	if old.Type != corev1.ServiceTypeExternalName && spec.Type != corev1.ServiceTypeExternalName {
		if spec.ClusterIP == "" {
			spec.ClusterIP = old.ClusterIP
		}
		if len(spec.ClusterIPs) == 0 {
			spec.ClusterIPs = slices.Clone(old.ClusterIPs)
		}
	}
	if needsNodePort(old) && needsNodePort(spec) {
		keepNodePorts(spec.Ports, old.Ports)
	}
	if needsHealthCheck(old) && needsHealthCheck(spec) && spec.HealthCheckNodePort == 0 {
		spec.HealthCheckNodePort = old.HealthCheckNodePort
	}
}

// keepNodePorts gives ports without a node port the one that the old port of
// the name had, unless another port asks for it.
func keepNodePorts(ports, old []corev1.ServicePort) {
	taken, byName := map[int32]bool{}, map[string]int32{}
	for i := range ports {
		taken[ports[i].NodePort] = true
	}
	for i := range old {
		byName[old[i].Name] = old[i].NodePort
	}
	for i := range ports {
		if port := &ports[i]; port.NodePort == 0 && !taken[byName[port.Name]] {
			port.NodePort = byName[port.Name]
		}
	}
}

// followClusterIP makes clusterIPs follow a clusterIP that alone was changed.
func followClusterIP(spec, old *corev1.ServiceSpec) {
	if spec.ClusterIP == old.ClusterIP || !slices.Equal(spec.ClusterIPs, old.ClusterIPs) {
		return
	}
	if spec.ClusterIP == "" {
		spec.ClusterIPs = nil
	} else {
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
}

// dropLeftovers clears what only the old type needed and what the update did
// not touch; what it did touch is left for validation to refuse.
func dropLeftovers(spec, old *corev1.ServiceSpec) {
	if old.Type != corev1.ServiceTypeExternalName && spec.Type == corev1.ServiceTypeExternalName {
		if spec.ClusterIP == old.ClusterIP && slices.Equal(spec.ClusterIPs, old.ClusterIPs) {
			spec.ClusterIP, spec.ClusterIPs = "", nil
		}
		if slices.Equal(spec.IPFamilies, old.IPFamilies) {
			spec.IPFamilies = nil
		}
		if ptr.Equal(spec.IPFamilyPolicy, old.IPFamilyPolicy) {
			spec.IPFamilyPolicy = nil
		}
	}
	if needsNodePort(old) && !needsNodePort(spec) && sameNodePorts(spec.Ports, old.Ports) {
		for i := range spec.Ports {
			spec.Ports[i].NodePort = 0
		}
	}
	if needsHealthCheck(old) && !needsHealthCheck(spec) && spec.HealthCheckNodePort == old.HealthCheckNodePort {
		spec.HealthCheckNodePort = 0
	}
	if old.Type == corev1.ServiceTypeLoadBalancer && spec.Type != corev1.ServiceTypeLoadBalancer {
		if ptr.Equal(spec.AllocateLoadBalancerNodePorts, old.AllocateLoadBalancerNodePorts) {
			spec.AllocateLoadBalancerNodePorts = nil
		}
		if ptr.Equal(spec.LoadBalancerClass, old.LoadBalancerClass) {
			spec.LoadBalancerClass = nil
		}
	}
	if externallyAccessible(old) && !externallyAccessible(spec) && spec.ExternalTrafficPolicy == old.ExternalTrafficPolicy {
		spec.ExternalTrafficPolicy = ""
	}
}

// sameNodePorts says whether the update asks for no node port that the Service
// did not have.
func sameNodePorts(ports, old []corev1.ServicePort) bool {
	had := map[int32]bool{0: true}
	for i := range old {
		had[old[i].NodePort] = true
	}
	return !slices.ContainsFunc(ports, func(p corev1.ServicePort) bool { return !had[p.NodePort] })
}
