// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/dump"

	"kaji/internal/controller/podstate"
)

// capacity is how many addresses an Endpoints object holds.
const capacity = 1000

// addressed is a pod's address and whether it may be used.
type addressed struct {
	corev1.EndpointAddress
	ready bool
}

// subsetsOf returns the canonical subsets of a Service: ports that have the
// same addresses stand together, in upstream's order.
func subsetsOf(svc *corev1.Service, pods []*corev1.Pod) []corev1.EndpointSubset {
	byPort := map[string][]addressed{}
	ports := map[string]corev1.EndpointPort{}
	var bare []corev1.EndpointSubset
	for _, pod := range sorted(svc, pods) {
		if len(svc.Spec.Ports) == 0 {
			if svc.Spec.ClusterIP == corev1.ClusterIPNone {
				bare = append(bare, subset([]addressed{addressOf(svc, pod)}, nil))
			}
			continue
		}
		for i := range svc.Spec.Ports {
			p := &svc.Spec.Ports[i]
			n, ok := podstate.TargetPort(pod, p)
			if !ok {
				continue
			}
			port := corev1.EndpointPort{Name: p.Name, Port: n, Protocol: p.Protocol, AppProtocol: p.AppProtocol}
			id := fmt.Sprintf("%s/%d/%s", p.Name, n, p.Protocol)
			ports[id] = port
			byPort[id] = append(byPort[id], addressOf(svc, pod))
		}
	}
	if bare != nil {
		return pack(bare)
	}
	grouped := map[string]*corev1.EndpointSubset{}
	for id, addresses := range byPort {
		key := fmt.Sprint(dump.ForHash(addresses))
		if grouped[key] == nil {
			s := subset(addresses, nil)
			grouped[key] = &s
		}
		grouped[key].Ports = append(grouped[key].Ports, ports[id])
	}
	out := []corev1.EndpointSubset{}
	for _, s := range grouped {
		slices.SortFunc(s.Ports, func(a, b corev1.EndpointPort) int { return byHash(a, b) })
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b corev1.EndpointSubset) int { return byHash(a, b) })
	return out
}

// pack joins the addresses of subsets without ports. Old servers of names read
// them; upstream has them without an order and we sort them.
func pack(subsets []corev1.EndpointSubset) []corev1.EndpointSubset {
	var out corev1.EndpointSubset
	for _, s := range subsets {
		out.Addresses = append(out.Addresses, s.Addresses...)
		out.NotReadyAddresses = append(out.NotReadyAddresses, s.NotReadyAddresses...)
	}
	return []corev1.EndpointSubset{out}
}

func byHash(a, b any) int {
	sum := func(v any) string {
		h := fnv.New128a()
		fmt.Fprint(h, dump.ForHash(v))
		return string(h.Sum(nil))
	}
	return strings.Compare(sum(a), sum(b))
}

func subset(addresses []addressed, ports []corev1.EndpointPort) corev1.EndpointSubset {
	s := corev1.EndpointSubset{Ports: ports}
	for _, a := range addresses {
		if a.ready {
			s.Addresses = append(s.Addresses, a.EndpointAddress)
		} else {
			s.NotReadyAddresses = append(s.NotReadyAddresses, a.EndpointAddress)
		}
	}
	return s
}

// sorted returns the pods that have an address of the Service's family and are
// not done, by address.
func sorted(svc *corev1.Service, pods []*corev1.Pod) []*corev1.Pod {
	var out []*corev1.Pod
	for _, pod := range pods {
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed ||
			pod.DeletionTimestamp != nil && !svc.Spec.PublishNotReadyAddresses || ipOf(svc, pod) == "" {
			continue
		}
		out = append(out, pod)
	}
	slices.SortFunc(out, func(a, b *corev1.Pod) int {
		return cmp.Or(strings.Compare(ipOf(svc, a), ipOf(svc, b)), strings.Compare(string(a.UID), string(b.UID)))
	})
	return out
}

// ipOf is the pod's address in the Service's first family.
func ipOf(svc *corev1.Service, pod *corev1.Pod) string {
	v6 := false
	switch own, err := netip.ParseAddr(svc.Spec.ClusterIP); {
	case len(svc.Spec.IPFamilies) > 0:
		v6 = svc.Spec.IPFamilies[0] == corev1.IPv6Protocol
	case err == nil:
		v6 = own.Is6()
	default:
		main, err := netip.ParseAddr(pod.Status.PodIP)
		v6 = err == nil && main.Is6()
	}
	for _, a := range podstate.Addresses(pod) {
		if ip, err := netip.ParseAddr(a); err == nil && ip.Is6() == v6 {
			return a
		}
	}
	return ""
}

func addressOf(svc *corev1.Service, pod *corev1.Pod) addressed {
	_, ready := podstate.Ready(pod)
	a := addressed{ready: ready || svc.Spec.PublishNotReadyAddresses, EndpointAddress: corev1.EndpointAddress{
		IP: ipOf(svc, pod), NodeName: &pod.Spec.NodeName,
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}}
	if pod.Spec.Hostname != "" && pod.Spec.Subdomain == svc.Name {
		a.Hostname = pod.Spec.Hostname
	}
	return a
}

// truncate cuts the subsets to the capacity, those not ready first, each in
// proportion; false says that all fit.
func truncate(subsets []corev1.EndpointSubset) bool {
	ready, other := 0, 0
	for _, s := range subsets {
		ready, other = ready+len(s.Addresses), other+len(s.NotReadyAddresses)
	}
	if ready+other <= capacity {
		return false
	}
	cutReady := ready > capacity
	room, total := capacity-ready, other
	if cutReady {
		room, total = capacity, ready
	}
	left := room
	for i := range subsets {
		s := &subsets[i]
		from := &s.NotReadyAddresses
		if cutReady {
			s.NotReadyAddresses, from = nil, &s.Addresses
		}
		share := (len(*from)*room + total - 1) / total
		*from = (*from)[:min(share, left, len(*from))]
		left -= len(*from)
	}
	return true
}
