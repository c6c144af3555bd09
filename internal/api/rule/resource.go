// SPDX-License-Identifier: Apache-2.0

package rule

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// NotPositive is the message for a number that must be above zero.
const NotPositive = "must be greater than zero"

// RoundUp rounds each quantity up to a thousandth, the finest that is kept.
func RoundUp(list corev1.ResourceList) {
	for name, q := range list {
		q.RoundUp(resource.Milli)
		list[name] = q
	}
}

// NonNegative requires a quantity of zero or more.
func NonNegative(q resource.Quantity, p *field.Path) field.ErrorList {
	if q.Sign() < 0 {
		return field.ErrorList{field.Invalid(p, q.String(), apivalidation.IsNegativeErrorMsg)}
	}
	return nil
}

// Positive requires a quantity above zero.
func Positive(q resource.Quantity, p *field.Path) field.ErrorList {
	if q.Sign() <= 0 {
		return field.ErrorList{field.Invalid(p, q.String(), NotPositive)}
	}
	return nil
}

// BasicQuantity requires a whole value of zero or more.
func BasicQuantity(q resource.Quantity, p *field.Path) field.ErrorList {
	if q.Value() < 0 {
		return field.ErrorList{field.Invalid(p, q.Value(), "must be a valid resource quantity")}
	}
	return nil
}

// Quantity requires an amount that the resource can have.
func Quantity(name corev1.ResourceName, q resource.Quantity, p *field.Path) field.ErrorList {
	errs := NonNegative(q, p)
	if isInteger(name) && q.MilliValue()%1000 != 0 {
		errs = append(errs, field.Invalid(p, q, "must be an integer"))
	}
	return errs
}

// ResourceName requires a standard resource or a qualified name.
func ResourceName(name corev1.ResourceName, p *field.Path) field.ErrorList {
	if errs := Messages(p, name, validation.IsQualifiedName(string(name))); len(errs) > 0 {
		return errs
	}
	if unqualified(name) && !isStandard(name) {
		return field.ErrorList{field.Invalid(p, name, "must be a standard resource type or fully qualified")}
	}
	return nil
}

// ContainerResourceName requires a resource that a container can ask for.
func ContainerResourceName(name corev1.ResourceName, p *field.Path) field.ErrorList {
	errs := ResourceName(name, p)
	switch {
	case unqualified(name):
		switch {
		case name == corev1.ResourceCPU, name == corev1.ResourceMemory, name == corev1.ResourceEphemeralStorage, IsHugePages(name):
		default:
			errs = append(errs, field.Invalid(p, name, "must be a standard resource for containers"))
		}
	case !IsNative(name) && !IsExtended(name):
		errs = append(errs, field.Invalid(p, name, "doesn't follow extended resource name standard"))
	}
	return errs
}

// QuotaResourceName requires a resource that a quota can bound.
func QuotaResourceName(name corev1.ResourceName, p *field.Path) field.ErrorList {
	errs := ResourceName(name, p)
	if unqualified(name) && !IsStandardQuota(name) {
		errs = append(errs, field.Invalid(p, name, "must be a standard resource for quota"))
	}
	return errs
}

func unqualified(name corev1.ResourceName) bool { return !strings.Contains(string(name), "/") }

// IsHugePages says whether name is a size of huge pages.
func IsHugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// HugePageSize is the size of one page of a huge-page resource.
func HugePageSize(name corev1.ResourceName) (resource.Quantity, error) {
	return resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
}

// HugePagesDivide says whether q is a whole number of pages of the resource.
func HugePagesDivide(name corev1.ResourceName, q resource.Quantity) bool {
	size, err := HugePageSize(name)
	return err == nil && size.Sign() > 0 && size.MilliValue()%1000 == 0 && q.Value()%size.Value() == 0
}

// IsNative says whether the resource belongs to Kubernetes itself.
func IsNative(name corev1.ResourceName) bool {
	return unqualified(name) || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// IsExtended says whether the resource is one that devices or administrators add.
func IsExtended(name corev1.ResourceName) bool {
	if IsNative(name) || strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) {
		return false
	}
	return len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+string(name))) == 0
}

// MayOvercommit says whether limits may exceed requests.
func MayOvercommit(name corev1.ResourceName) bool { return IsNative(name) && !IsHugePages(name) }

func isInteger(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers,
		corev1.ResourceSecrets, corev1.ResourceConfigMaps, corev1.ResourcePersistentVolumeClaims,
		corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers:
		return true
	}
	return IsExtended(name)
}

// IsStandardQuota says whether the resource is one that quotas know by name.
func IsStandardQuota(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsStorage, corev1.ResourceRequestsEphemeralStorage,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage,
		corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers,
		corev1.ResourceSecrets, corev1.ResourcePersistentVolumeClaims, corev1.ResourceConfigMaps,
		corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers:
		return true
	}
	return isQuotaHugePages(name)
}

func isStandard(name corev1.ResourceName) bool {
	return name == corev1.ResourceStorage || IsStandardQuota(name)
}

func isQuotaHugePages(name corev1.ResourceName) bool {
	return IsHugePages(name) || strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix)
}
