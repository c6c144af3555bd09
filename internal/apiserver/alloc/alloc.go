// SPDX-License-Identifier: Apache-2.0

// Package alloc gives Services their cluster IPs and node ports. What it gives
// is committed in the Service's own transaction: the IPAddress objects and the
// bitmap of ports can neither leak nor be given twice, whatever crashes.
//
// The object layer calls it as the hook of services. It keeps no state of its
// own; other API servers on the same store may allocate at the same time.
package alloc

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/object"
	"kaji/internal/apiserver/request"
	"kaji/internal/store"
)

// Config configures an Allocator.
type Config struct {
	Store store.Store
	// Cache returns the server's cache; Kinds its table.
	Cache *cache.Cache
	Kinds *request.Kinds
	// Ranges are the cluster IP ranges, one a family, the default family first.
	Ranges []netip.Prefix
	// Ports is the range of node ports, both ends included.
	Ports PortRange
}

// PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last int }

// DefaultPorts is upstream's range of node ports.
func DefaultPorts() PortRange { return PortRange{30000, 32767} }

// String is how upstream writes the range.
func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// Allocator implements object.Hook for services.
type Allocator struct{ Config }

// New returns an Allocator.
func New(cfg Config) *Allocator {
	if cfg.Ports == (PortRange{}) {
		cfg.Ports = DefaultPorts()
	}
	return &Allocator{cfg}
}

var _ object.Hook = (*Allocator)(nil)

// BeforeWrite implements object.Hook.
func (a *Allocator) BeforeWrite(ctx context.Context, obj, old api.Object, dryRun bool) (object.Side, error) {
	after := obj.(*corev1.Service)
	var before *corev1.Service
	if old != nil {
		before = old.(*corev1.Service)
	}
	if err := a.families(after, before); err != nil {
		return object.Side{}, err
	}
	var side object.Side
	if err := a.addresses(ctx, &side, after, before); err != nil {
		return object.Side{}, err
	}
	if err := a.ports(ctx, &side, after, before, dryRun); err != nil {
		return object.Side{}, err
	}
	return side, nil
}

// BeforeRemove implements object.Hook.
func (a *Allocator) BeforeRemove(ctx context.Context, old api.Object) (object.Side, error) {
	before := old.(*corev1.Service)
	var side object.Side
	for _, ip := range held(before) {
		a.release(&side, ip)
	}
	return side, a.changePorts(ctx, &side, nil, portsOf(before))
}

// invalid is the answer to a Service that cannot be given what it asks for.
func invalid(s *corev1.Service, errs ...*field.Error) error {
	return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), s.Name, errs)
}

// hasClusterIP says whether Services of this type have cluster IPs.
func hasClusterIP(s *corev1.Service) bool { return s.Spec.Type != corev1.ServiceTypeExternalName }

func headless(s *corev1.Service) bool {
	return len(s.Spec.ClusterIPs) > 0 && s.Spec.ClusterIPs[0] == corev1.ClusterIPNone
}

// held returns the addresses a Service has.
func held(s *corev1.Service) []string {
	if s == nil || !hasClusterIP(s) || headless(s) {
		return nil
	}
	return s.Spec.ClusterIPs
}

// ipAddresses is the kind of IPAddress objects, nil where it is not served.
func (a *Allocator) ipAddresses() *request.Served {
	return a.Kinds.Kind(networkingv1.SchemeGroupVersion.WithKind("IPAddress"))
}

// release deletes the IPAddress of an address.
func (a *Allocator) release(side *object.Side, ip string) {
	if kind := a.ipAddresses(); kind != nil {
		side.Ops = append(side.Ops, store.Op{Key: kind.Kind.Key("", canonical(ip)), Delete: true})
	}
}

func canonical(ip string) string {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return ip
	}
	return addr.String()
}

// claim creates the IPAddress that stands for an address being taken.
func (a *Allocator) claim(side *object.Side, s *corev1.Service, addr netip.Addr) {
	kind := a.ipAddresses()
	if kind == nil {
		return
	}
	family := "IPv4"
	if addr.Is6() {
		family = "IPv6"
	}
	ip := &networkingv1.IPAddress{Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{
		Resource: "services", Namespace: s.Namespace, Name: s.Name,
	}}}
	ip.Name = addr.String()
	ip.Labels = map[string]string{
		networkingv1.LabelIPAddressFamily: family,
		networkingv1.LabelManagedBy:       managedBy,
	}
	object.Fill(ip)
	now := metav1.Now().Rfc3339Copy()
	ip.ManagedFields = []metav1.ManagedFieldsEntry{{
		Manager: "kube-apiserver", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: networkingv1.SchemeGroupVersion.String(),
		Time: &now, FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: []byte(claimed)},
	}}
	ip.SetGroupVersionKind(request.ServedOf(kind.Kind, codec.HubVersion(kind.Kind)).GVK)
	side.New = append(side.New, object.Made{Kind: kind.Kind, Object: ip})
}

// claimed are the fields that the allocator sets, as managedFields spell them.
const claimed = `{"f:metadata":{"f:labels":{".":{},"f:ipaddress.kubernetes.io/ip-family":{},"f:ipaddress.kubernetes.io/managed-by":{}}},` +
	`"f:spec":{"f:parentRef":{".":{},"f:name":{},"f:namespace":{},"f:resource":{}}}}`

// managedBy is upstream's name for the allocator, a label of its IPAddresses.
const managedBy = "ipallocator.k8s.io"

var (
	errAllocated = errors.New("provided IP is already allocated")
	errFull      = errors.New("range is full")
)
