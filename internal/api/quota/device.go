// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// Devices looks up what stands behind a ResourceClaim. A nil function knows
// nothing.
type Devices struct {
	// Classes returns the DeviceClasses.
	Classes func() []*resourcev1.DeviceClass
	// Pod returns a pod, nil when there is none.
	Pod func(namespace, name string) *corev1.Pod
	// Claims returns the ResourceClaims of a namespace.
	Claims func(namespace string) []*resourcev1.ResourceClaim
}

func resourceClaims(d Devices) *Evaluator {
	return &Evaluator{
		Resource: resourcev1.Resource("resourceclaims"),
		measures: d.measures,
		charges:  func(w Write) bool { return w.Subresource == "" },
		usage:    d.usage,
	}
}

const claimsCount = "count/resourceclaims.resource.k8s.io"

// measures: the number of claims, devices of a class, and devices of a class
// under the name of the extended resource it stands for.
func (d Devices) measures(name corev1.ResourceName) bool {
	if name == claimsCount || strings.HasSuffix(string(name), corev1.ResourceClaimsPerClass) {
		return true
	}
	if class, ok := strings.CutPrefix(string(name), corev1.ResourceImplicitExtendedClaimsPerClass); ok {
		return d.extendedResource(class) != ""
	}
	if !requestsExtended(name) || d.Classes == nil {
		return false
	}
	extended := strings.TrimPrefix(string(name), requests)
	for _, class := range d.Classes() {
		if class.Spec.ExtendedResourceName != nil && *class.Spec.ExtendedResourceName == extended {
			return true
		}
	}
	return false
}

// extendedResource is the extended resource that a class stands for.
func (d Devices) extendedResource(class string) string {
	if d.Classes == nil {
		return ""
	}
	for _, c := range d.Classes() {
		if c.Name == class && c.Spec.ExtendedResourceName != nil {
			return *c.Spec.ExtendedResourceName
		}
	}
	return ""
}

func (d Devices) usage(obj runtime.Object) (corev1.ResourceList, error) {
	claim, ok := obj.(*resourcev1.ResourceClaim)
	if !ok {
		return nil, wrongType("*v1.ResourceClaim", obj)
	}
	used := corev1.ResourceList{}
	for i := range claim.Spec.Devices.Requests {
		for class, n := range mostDevices(&claim.Spec.Devices.Requests[i]) {
			name := corev1.ResourceName(class + corev1.ResourceClaimsPerClass)
			q := used[name]
			q.Add(*resource.NewQuantity(n, resource.DecimalSI))
			used[name] = q
		}
	}
	d.addExtended(used, d.chargedTo(claim))
	used[claimsCount] = one()
	return used, nil
}

// mostDevices is how many devices of each class a request can be given at most.
func mostDevices(r *resourcev1.DeviceRequest) map[string]int64 {
	count := func(mode resourcev1.DeviceAllocationMode, n int64) int64 {
		switch mode {
		case resourcev1.DeviceAllocationModeExactCount:
			return n
		case resourcev1.DeviceAllocationModeAll:
			return resourcev1.AllocationResultsMaxSize
		}
		return 0
	}
	most := map[string]int64{}
	for _, sub := range r.FirstAvailable {
		if n := count(sub.AllocationMode, sub.Count); n > most[sub.DeviceClassName] {
			most[sub.DeviceClassName] = n
		}
	}
	if len(r.FirstAvailable) == 0 && r.Exactly != nil {
		most[r.Exactly.DeviceClassName] = count(r.Exactly.AllocationMode, r.Exactly.Count)
	}
	return most
}

// addExtended adds the devices once more by the names that pods ask for them
// by, less what the pod was charged already.
func (d Devices) addExtended(used, pod corev1.ResourceList) {
	for _, name := range Names(used) {
		class, ok := strings.CutSuffix(string(name), corev1.ResourceClaimsPerClass)
		if !ok || class == "" {
			continue
		}
		as := []corev1.ResourceName{corev1.ResourceName(corev1.ResourceImplicitExtendedClaimsPerClass + class)}
		if extended := d.extendedResource(class); extended != "" {
			as = append(as, corev1.ResourceName(requests+extended))
		}
		for _, n := range as {
			left := used[name].DeepCopy()
			left.Sub(pod[n])
			if left.Sign() > 0 {
				used[n] = left
			}
		}
	}
}

// chargedTo is what the pod is charged whose extended resources a claim was
// made for, nil for other claims.
func (d Devices) chargedTo(claim *resourcev1.ResourceClaim) corev1.ResourceList {
	owner := podOwner(claim)
	if owner == nil || d.Pod == nil {
		return nil
	}
	pod := d.Pod(claim.Namespace, owner.Name)
	if pod == nil || pod.UID != owner.UID {
		return nil
	}
	if s := pod.Status.ExtendedResourceClaimStatus; s != nil {
		if s.ResourceClaimName != claim.Name {
			return nil
		}
	} else if !d.first(claim, owner.UID) {
		return nil
	}
	used, err := podUsage(pod)
	if err != nil {
		return nil
	}
	return used
}

// podOwner is the pod that an extended resource's claim belongs to.
func podOwner(claim *resourcev1.ResourceClaim) *metav1.OwnerReference {
	if claim.Annotations[resourcev1.ExtendedResourceClaimAnnotation] != "true" {
		return nil
	}
	owner := metav1.GetControllerOfNoCopy(claim)
	if owner == nil || owner.Kind != "Pod" || owner.APIVersion != "v1" {
		return nil
	}
	return owner
}

// first says that no other such claim of the pod is older: one claim alone is
// excused by what the pod was charged.
func (d Devices) first(claim *resourcev1.ResourceClaim, pod types.UID) bool {
	if d.Claims == nil {
		return true
	}
	for _, other := range d.Claims(claim.Namespace) {
		if owner := podOwner(other); owner == nil || owner.UID != pod {
			continue
		}
		switch order := other.CreationTimestamp.Compare(claim.CreationTimestamp.Time); {
		case order < 0, order == 0 && other.Name < claim.Name:
			return false
		}
	}
	return true
}
