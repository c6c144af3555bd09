// SPDX-License-Identifier: Apache-2.0

package alloc

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/core"
)

func familyOf(addr netip.Addr) corev1.IPFamily {
	if addr.Unmap().Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// configured are the families that have a range, the default one first.
func (a *Allocator) configured() []corev1.IPFamily {
	var families []corev1.IPFamily
	for _, r := range a.Ranges {
		families = append(families, familyOf(r.Addr()))
	}
	return families
}

// families settles ipFamilyPolicy and ipFamilies from what was given
// (KEP-563), and refuses what the cluster cannot do.
func (a *Allocator) families(s, before *corev1.Service) error {
	if !hasClusterIP(s) {
		return nil
	}
	if before != nil && hasClusterIP(before) && prefers(s) && sameAddresses(s, before) {
		// A change of the cluster does not move Services that have what they need.
		return nil
	}
	if errs := core.ValidateClusterIPs(s, before); len(errs) > 0 {
		return invalid(s, errs...)
	}
	var errs field.ErrorList
	spec := field.NewPath("spec")
	given := &s.Spec
	asked := given.IPFamilyPolicy

	for i, ip := range given.ClusterIPs {
		addr, err := netip.ParseAddr(ip)
		if err != nil {
			break // None, or left to validation
		}
		if i >= len(given.IPFamilies) {
			given.IPFamilies = append(given.IPFamilies, familyOf(addr))
		}
	}
	switch several := len(given.IPFamilies) > 1 || len(given.ClusterIPs) > 1; {
	case several && asked == nil:
		given.IPFamilyPolicy = policy(corev1.IPFamilyPolicyRequireDualStack)
	case several && *asked == corev1.IPFamilyPolicySingleStack:
		if len(given.ClusterIPs) > 1 {
			errs = append(errs, field.Invalid(spec.Child("ipFamilyPolicy"), *asked, "must be RequireDualStack or PreferDualStack when multiple clusterIPs are specified"))
		} else {
			errs = append(errs, field.Invalid(spec.Child("ipFamilyPolicy"), *asked, "must be RequireDualStack or PreferDualStack when multiple ipFamilies are specified"))
		}
	}
	have := a.configured()
	if headless(s) && len(given.Selector) == 0 {
		// Nobody follows such a Service's endpoints by family.
		if given.IPFamilyPolicy == nil {
			given.IPFamilyPolicy = policy(corev1.IPFamilyPolicyRequireDualStack)
		}
		if *given.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack {
			have = both(have)
		}
	} else {
		if given.IPFamilyPolicy == nil {
			given.IPFamilyPolicy = policy(corev1.IPFamilyPolicySingleStack)
		}
		if *given.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack && len(have) < 2 {
			errs = append(errs, field.Invalid(spec.Child("ipFamilyPolicy"), *given.IPFamilyPolicy, "this cluster is not configured for dual-stack services"))
		}
		for i, family := range given.IPFamilies {
			if !slices.Contains(have, family) {
				errs = append(errs, field.Invalid(spec.Child("ipFamilies").Index(i), family, "not configured on this cluster"))
			}
		}
	}
	if len(errs) > 0 {
		return invalid(s, errs...)
	}
	if len(have) == 0 {
		return nil
	}
	if len(given.IPFamilies) == 0 {
		given.IPFamilies = []corev1.IPFamily{have[0]}
	}
	if *given.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack && len(given.IPFamilies) == 1 {
		for _, family := range have {
			if family != given.IPFamilies[0] {
				given.IPFamilies = append(given.IPFamilies, family)
			}
		}
	}
	return nil
}

func policy(p corev1.IPFamilyPolicy) *corev1.IPFamilyPolicy { return &p }

func prefers(s *corev1.Service) bool {
	return s.Spec.IPFamilyPolicy != nil && *s.Spec.IPFamilyPolicy == corev1.IPFamilyPolicyPreferDualStack
}

// sameAddresses says whether an update leaves type, policy, families and
// addresses alone.
func sameAddresses(s, before *corev1.Service) bool {
	return s.Spec.Type == before.Spec.Type && prefers(before) &&
		slices.Equal(s.Spec.ClusterIPs, before.Spec.ClusterIPs) && slices.Equal(s.Spec.IPFamilies, before.Spec.IPFamilies)
}

// both returns both families, those configured first.
func both(have []corev1.IPFamily) []corev1.IPFamily {
	all := slices.Clone(have)
	for _, family := range []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol} {
		if !slices.Contains(all, family) {
			all = append(all, family)
		}
	}
	return all
}
