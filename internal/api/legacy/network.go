// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	discoveryv1beta1 "k8s.io/api/discovery/v1beta1"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	networkingv1 "k8s.io/api/networking/v1"
	networkingv1beta1 "k8s.io/api/networking/v1beta1"

	"kaji/internal/api"
)

func versions(v ...api.Version) []api.Version { return v }

func network() []removed {
	extensions, beta := extensionsv1beta1.SchemeGroupVersion, networkingv1beta1.SchemeGroupVersion
	return []removed{
		{networkingv1.Resource("ingresses"), versions(
			like[extensionsv1beta1.Ingress, extensionsv1beta1.IngressList](extensions, ingressUp, ingressDown),
			like[networkingv1beta1.Ingress, networkingv1beta1.IngressList](beta, ingressUp, ingressDown),
		)},
		{networkingv1.Resource("ingressclasses"), versions(
			like[networkingv1beta1.IngressClass, networkingv1beta1.IngressClassList](beta, nil, nil),
		)},
		{networkingv1.Resource("ipaddresses"), versions(
			like[networkingv1beta1.IPAddress, networkingv1beta1.IPAddressList](beta, nil, nil),
		)},
		{networkingv1.Resource("servicecidrs"), versions(
			like[networkingv1beta1.ServiceCIDR, networkingv1beta1.ServiceCIDRList](beta, nil, nil),
		)},
		{networkingv1.Resource("networkpolicies"), versions(
			like[extensionsv1beta1.NetworkPolicy, extensionsv1beta1.NetworkPolicyList](extensions, nil, nil),
		)},
		{discoveryv1.Resource("endpointslices"), versions(
			like[discoveryv1beta1.EndpointSlice, discoveryv1beta1.EndpointSliceList](discoveryv1beta1.SchemeGroupVersion, sliceUp, sliceDown),
		)},
	}
}

// backends calls f with every backend of an ingress; name is what the version
// calls the one for everything else.
func backends(object map[string]any, name string, f func(backend map[string]any)) {
	spec := at(object, "spec")
	if backend := at(spec, name); backend != nil {
		f(backend)
	}
	each(spec, "rules", func(rule map[string]any) {
		each(at(rule, "http"), "paths", func(path map[string]any) {
			if backend := at(path, "backend"); backend != nil {
				f(backend)
			}
		})
	})
}

// ingressUp turns serviceName and servicePort into a reference and lets paths
// mean what the controller makes of them.
func ingressUp(object map[string]any) {
	backends(object, "backend", func(backend map[string]any) {
		service, _ := backend["serviceName"].(string)
		port := map[string]any{}
		switch p := backend["servicePort"].(type) {
		case string:
			port["name"] = p
		case float64:
			port["number"] = p
		}
		delete(backend, "serviceName")
		delete(backend, "servicePort")
		if service != "" {
			backend["service"] = map[string]any{"name": service, "port": port}
		}
	})
	spec := at(object, "spec")
	each(spec, "rules", func(rule map[string]any) {
		each(at(rule, "http"), "paths", func(path map[string]any) {
			setDefault(path, "pathType", string(networkingv1.PathTypeImplementationSpecific))
		})
	})
	move(spec, "backend", "defaultBackend")
}

func ingressDown(object map[string]any) {
	backends(object, "defaultBackend", func(backend map[string]any) {
		service := at(backend, "service")
		if service == nil {
			return
		}
		delete(backend, "service")
		backend["serviceName"] = service["name"]
		port := at(service, "port")
		if number, ok := port["number"]; ok {
			backend["servicePort"] = number
		} else if name, ok := port["name"]; ok {
			backend["servicePort"] = name
		}
	})
	move(at(object, "spec"), "defaultBackend", "backend")
}

// sliceUp takes node and zone out of the topology of endpoints.
func sliceUp(object map[string]any) {
	each(object, "endpoints", func(endpoint map[string]any) {
		topology := at(endpoint, "topology")
		if node, ok := topology[corev1.LabelHostname]; ok {
			setDefault(endpoint, "nodeName", node)
		}
		if zone, ok := topology[corev1.LabelTopologyZone]; ok {
			endpoint["zone"] = zone
		}
		delete(endpoint, "topology")
	})
}

func sliceDown(object map[string]any) {
	each(object, "endpoints", func(endpoint map[string]any) {
		topology := map[string]any{}
		if node, ok := endpoint["nodeName"]; ok {
			topology[corev1.LabelHostname] = node
		}
		if zone, ok := endpoint["zone"]; ok {
			topology[corev1.LabelTopologyZone] = zone
		}
		delete(endpoint, "zone")
		delete(endpoint, "deprecatedTopology")
		if len(topology) > 0 {
			endpoint["topology"] = topology
		}
	})
}
