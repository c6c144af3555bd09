// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	applynetworkingv1 "k8s.io/client-go/applyconfigurations/networking/v1"

	"kaji/internal/client"
	"kaji/internal/store"
)

const (
	kubernetesService = "kubernetes"
	// leasePrefix is where the servers of a cluster say that they live, as
	// upstream does.
	leasePrefix = "/registry/masterleases/"
	leaseTTL    = 15 // seconds
	leaseEvery  = 10 * time.Second
)

func serviceResource() client.Resource {
	return client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("services"), Namespace: metav1.NamespaceDefault}
}

// ensureServiceCIDR creates the ServiceCIDR of the configured ranges.
func (s *Server) ensureServiceCIDR(ctx context.Context) {
	r := client.Resource{GroupVersionResource: networkingv1.SchemeGroupVersion.WithResource("servicecidrs")}
	if s.kinds.Resource(r.GroupVersionResource) == nil {
		return
	}
	self := s.Self()
	cidr := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: kubernetesService}}
	for _, p := range s.cfg.ServiceRanges {
		cidr.Spec.CIDRs = append(cidr.Spec.CIDRs, p.Masked().String())
	}
	s.ensure(ctx, "the default ServiceCIDR", func() error {
		_, err := self.Create(ctx, r, "", cidr, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		if err != nil {
			return err
		}
		// An apply, since other controllers apply conditions of their own.
		ready, err := json.Marshal(applynetworkingv1.ServiceCIDR(kubernetesService).WithStatus(
			applynetworkingv1.ServiceCIDRStatus().WithConditions(applymetav1.Condition().
				WithType(networkingv1.ServiceCIDRConditionReady).WithStatus(metav1.ConditionTrue).
				WithLastTransitionTime(metav1.Now()).WithMessage("Kubernetes default Service CIDR is ready"))))
		if err != nil {
			return err
		}
		status := r
		status.Subresource = "status"
		_, err = self.Patch(ctx, status, cidr.Name, types.ApplyPatchType, ready, metav1.PatchOptions{FieldManager: "kubernetes-service-cidr-controller", Force: new(true)})
		return err
	})
}

// ensureKubernetesService creates the Service by which pods reach the API.
func (s *Server) ensureKubernetesService(ctx context.Context) {
	if s.kinds.Resource(serviceResource().GroupVersionResource) == nil {
		return
	}
	port := int32(6443)
	if s.cfg.Advertise.IsValid() {
		port = int32(s.cfg.Advertise.Port())
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: kubernetesService, Namespace: metav1.NamespaceDefault,
			Labels: map[string]string{"provider": "kubernetes", "component": "apiserver"},
		},
		Spec: corev1.ServiceSpec{
			Ports:           []corev1.ServicePort{{Name: "https", Port: 443, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(port)}},
			ClusterIP:       s.cfg.ServiceRanges[0].Masked().Addr().Next().String(),
			SessionAffinity: corev1.ServiceAffinityNone,
			Type:            corev1.ServiceTypeClusterIP,
			IPFamilyPolicy:  new(corev1.IPFamilyPolicySingleStack),
		},
	}
	s.ensure(ctx, "the Service kubernetes", func() error { return create(ctx, s.Self(), serviceResource(), service) })
}

// ensurePriorityClasses creates the classes that system pods name.
func (s *Server) ensurePriorityClasses(ctx context.Context) {
	r := client.Resource{GroupVersionResource: schedulingv1.SchemeGroupVersion.WithResource("priorityclasses")}
	if s.kinds.Resource(r.GroupVersionResource) == nil {
		return
	}
	var all sync.WaitGroup
	for _, class := range []*schedulingv1.PriorityClass{
		{ObjectMeta: metav1.ObjectMeta{Name: "system-node-critical"}, Value: 2_000_001_000,
			Description: "Used for system critical pods that must not be moved from their current node."},
		{ObjectMeta: metav1.ObjectMeta{Name: "system-cluster-critical"}, Value: 2_000_000_000,
			Description: "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."},
	} {
		all.Go(func() {
			s.ensure(ctx, "priority class "+class.Name, func() error { return create(ctx, s.Self(), r, class) })
		})
	}
	all.Wait()
}

// repairEvery is how often the record of addresses and ports is compared with
// the Services.
const repairEvery = 3 * time.Minute

// keepRepaired repairs what others left behind in the record of addresses and
// ports, at the start and from time to time.
func (s *Server) keepRepaired(ctx context.Context) {
	if len(s.cfg.ServiceRanges) == 0 {
		return
	}
	tick := time.NewTicker(repairEvery)
	defer tick.Stop()
	for {
		if err := s.allocator.Repair(ctx, s.objects.CommitSide); err != nil && ctx.Err() == nil {
			s.log.Error("cannot repair the record of cluster IPs and node ports", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// keepKubernetesEndpoints keeps the endpoints of the Service kubernetes at the
// servers that live, until ctx ends.
func (s *Server) keepKubernetesEndpoints(ctx context.Context) {
	if !s.cfg.Advertise.IsValid() || s.cfg.Advertise.Addr().IsLoopback() || len(s.cfg.ServiceRanges) == 0 {
		return
	}
	own := s.cfg.Advertise.Addr().String()
	tick := time.NewTicker(leaseEvery)
	defer tick.Stop()
	for {
		if err := s.reconcileEndpoints(ctx, own, true); err != nil && ctx.Err() == nil {
			s.log.Error("cannot keep the endpoints of the Service kubernetes", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if err := s.reconcileEndpoints(last, own, false); err != nil {
				s.log.Debug("cannot leave the endpoints of the Service kubernetes", "err", err)
			}
			return
		}
	}
}

// reconcileEndpoints renews or gives up this server's lease and writes the
// endpoints of all that hold one.
func (s *Server) reconcileEndpoints(ctx context.Context, own string, alive bool) error {
	op := store.Op{Key: leasePrefix + own, Value: []byte(own), TTL: leaseTTL}
	if !alive {
		op = store.Op{Key: leasePrefix + own, Delete: true}
	}
	if _, err := s.cfg.Store.Commit(ctx, store.Txn{Ops: []store.Op{op}}); err != nil {
		return err
	}
	leases, err := s.cfg.Store.Range(ctx, store.Range{Start: leasePrefix, End: store.PrefixEnd(leasePrefix)})
	if err != nil {
		return err
	}
	var addresses []string
	for _, kv := range leases.KVs {
		addresses = append(addresses, strings.TrimPrefix(kv.Key, leasePrefix))
	}
	if len(addresses) == 0 {
		// The last one leaves its endpoints: there is nobody to miss them.
		return nil
	}
	slices.Sort(addresses)
	if err := s.writeEndpoints(ctx, addresses); err != nil {
		return err
	}
	return s.writeEndpointSlice(ctx, addresses)
}

func (s *Server) writeEndpoints(ctx context.Context, addresses []string) error {
	r := client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("endpoints"), Namespace: metav1.NamespaceDefault}
	subset := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: "https", Port: int32(s.cfg.Advertise.Port()), Protocol: corev1.ProtocolTCP}}}
	for _, ip := range addresses {
		subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: ip})
	}
	wanted := &corev1.Endpoints{ //nolint:staticcheck // clients of the old API still read it
		ObjectMeta: metav1.ObjectMeta{
			Name: kubernetesService, Namespace: metav1.NamespaceDefault,
			Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"},
		},
		Subsets: []corev1.EndpointSubset{subset},
	}
	self := s.Self()
	have, err := self.Get(ctx, r, kubernetesService, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return create(ctx, self, r, wanted)
	}
	if err != nil {
		return err
	}
	old := have.(*corev1.Endpoints) //nolint:staticcheck // as above
	if equality.Semantic.DeepEqual(old.Subsets, wanted.Subsets) {
		return nil
	}
	next := old.DeepCopy()
	next.Subsets = wanted.Subsets
	_, err = self.Update(ctx, r, kubernetesService, next, metav1.UpdateOptions{})
	return err
}

func (s *Server) writeEndpointSlice(ctx context.Context, addresses []string) error {
	r := client.Resource{GroupVersionResource: discoveryv1.SchemeGroupVersion.WithResource("endpointslices"), Namespace: metav1.NamespaceDefault}
	family := discoveryv1.AddressTypeIPv4
	if addr, err := netip.ParseAddr(addresses[0]); err == nil && addr.Is6() {
		family = discoveryv1.AddressTypeIPv6
	}
	wanted := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: kubernetesService, Namespace: metav1.NamespaceDefault,
			Labels: map[string]string{discoveryv1.LabelServiceName: kubernetesService},
		},
		AddressType: family,
		Ports: []discoveryv1.EndpointPort{{
			Name: new("https"), Port: new(int32(s.cfg.Advertise.Port())), Protocol: new(corev1.ProtocolTCP),
		}},
	}
	for _, ip := range addresses {
		wanted.Endpoints = append(wanted.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
		})
	}
	self := s.Self()
	have, err := self.Get(ctx, r, kubernetesService, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return create(ctx, self, r, wanted)
	}
	if err != nil {
		return err
	}
	old := have.(*discoveryv1.EndpointSlice)
	if equality.Semantic.DeepEqual(old.Endpoints, wanted.Endpoints) && equality.Semantic.DeepEqual(old.Ports, wanted.Ports) {
		return nil
	}
	next := old.DeepCopy()
	next.Endpoints, next.Ports = wanted.Endpoints, wanted.Ports
	_, err = self.Update(ctx, r, kubernetesService, next, metav1.UpdateOptions{})
	return err
}
