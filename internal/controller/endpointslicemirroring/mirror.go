// SPDX-License-Identifier: Apache-2.0

package endpointslicemirroring

import (
	"context"
	"fmt"
	"maps"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	netutils "k8s.io/utils/net"
)

// DefaultMax is how many addresses of a subset are mirrored: a subset fits one
// slice.
const DefaultMax = 1000

// mirror returns the slices of Endpoints, one for each family and set of ports,
// and tells by an Event what it leaves out.
func (c *Controller) mirror(ctx context.Context, e *corev1.Endpoints) (out []*discoveryv1.EndpointSlice, left int) {
	byKey := map[string]*discoveryv1.EndpointSlice{}
	first := map[string]*corev1.EndpointAddress{} // by what tells addresses apart: the others say the same
	at := map[string]int{}                        // by slice and address
	invalid, skipped := 0, 0
	for i := range e.Subsets {
		s := &e.Subsets[i]
		added := 0
		add := func(a *corev1.EndpointAddress, ready bool) {
			if added >= c.max {
				skipped++
				return
			}
			same := a.IP
			if a.TargetRef != nil {
				same += " " + string(a.TargetRef.UID)
			}
			if before := first[same]; before != nil {
				a = before
			} else {
				first[same] = a
			}
			endpoint, family, ok := endpointOf(a, ready)
			if !ok {
				invalid++
				return
			}
			added++
			key := string(family) + portsID(s.Ports)
			slice := byKey[key]
			if slice == nil {
				slice = newSlice(e, family, s.Ports)
				byKey[key] = slice
				out = append(out, slice)
			}
			id := key + " " + endpoint.Addresses[0]
			if a.TargetRef != nil {
				id += " " + string(a.TargetRef.UID)
			}
			if n, ok := at[id]; ok {
				slice.Endpoints[n] = endpoint
				return
			}
			if len(slice.Endpoints) < c.max {
				at[id] = len(slice.Endpoints)
				slice.Endpoints = append(slice.Endpoints, endpoint)
			}
		}
		for j := range s.Addresses {
			add(&s.Addresses[j], true)
		}
		for j := range s.NotReadyAddresses {
			add(&s.NotReadyAddresses[j], false)
		}
	}
	if invalid > 0 {
		c.events.Record(ctx, e, kind, corev1.EventTypeWarning, "InvalidIPAddress", "Skipped %d invalid IP addresses when mirroring to EndpointSlices", invalid)
	}
	if skipped > 0 {
		c.events.Record(ctx, e, kind, corev1.EventTypeWarning, "TooManyAddressesToMirror",
			"A max of %d addresses can be mirrored to EndpointSlices per Endpoints subset. %d addresses were skipped", c.max, skipped+invalid)
	}
	return out, skipped + invalid
}

func portsID(ports []corev1.EndpointPort) (id string) {
	for _, p := range ports {
		id += fmt.Sprintf(",%s/%d/%s", p.Name, p.Port, p.Protocol)
		if p.AppProtocol != nil {
			id += "/" + *p.AppProtocol
		}
	}
	return id
}

func endpointOf(a *corev1.EndpointAddress, ready bool) (discoveryv1.Endpoint, discoveryv1.AddressType, bool) {
	// Old objects may hold addresses with leading zeros.
	ip, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(a.IP))
	if !ok {
		return discoveryv1.Endpoint{}, "", false
	}
	ip = ip.Unmap()
	family := discoveryv1.AddressTypeIPv6
	if ip.Is4() {
		family = discoveryv1.AddressTypeIPv4
	}
	e := discoveryv1.Endpoint{Addresses: []string{ip.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}, TargetRef: a.TargetRef, NodeName: a.NodeName}
	if a.Hostname != "" {
		e.Hostname = &a.Hostname
	}
	return e, family, true
}

func newSlice(e *corev1.Endpoints, family discoveryv1.AddressType, ports []corev1.EndpointPort) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace, GenerateName: e.Name + "-", Labels: map[string]string{},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(e, kind)}},
		AddressType: family, Ports: []discoveryv1.EndpointPort{}, Endpoints: []discoveryv1.Endpoint{},
	}
	if len(validation.IsDNS1123Subdomain(e.Name+"-a")) > 0 {
		s.GenerateName = e.Name
	}
	maps.Copy(s.Labels, e.Labels)
	s.Labels[discoveryv1.LabelServiceName], s.Labels[discoveryv1.LabelManagedBy] = e.Name, managedBy
	for name, value := range e.Annotations {
		if name != corev1.EndpointsLastChangeTriggerTime && name != corev1.LastAppliedConfigAnnotation {
			metav1.SetMetaDataAnnotation(&s.ObjectMeta, name, value)
		}
	}
	for i := range ports {
		p := &ports[i]
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: &p.Port, AppProtocol: p.AppProtocol})
	}
	return s
}
