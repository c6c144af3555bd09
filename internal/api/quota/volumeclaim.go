// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/component-helpers/storage/volume"
)

// perStorageClass stands between a storage class and what is limited of it, as
// in gold.storageclass.storage.k8s.io/requests.storage.
const perStorageClass = ".storageclass.storage.k8s.io/"

func volumeClaims() *Evaluator {
	return &Evaluator{
		Resource: corev1.Resource("persistentvolumeclaims"),
		measures: func(name corev1.ResourceName) bool {
			if name == "count/persistentvolumeclaims" {
				return true
			}
			if _, rest, ok := cutLast(string(name), perStorageClass); ok {
				name = corev1.ResourceName(rest)
			}
			return name == corev1.ResourcePersistentVolumeClaims || name == corev1.ResourceRequestsStorage
		},
		charges: func(w Write) bool {
			switch w.Subresource {
			case "":
				return true
			case "status":
				return !w.Create && claimMoved(w.Old, w.Object)
			}
			return false
		},
		frees:   claimMoved,
		inScope: claimInScope,
		usage:   claimUsage,
	}
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func claimUsage(obj runtime.Object) (corev1.ResourceList, error) {
	claim, ok := obj.(*corev1.PersistentVolumeClaim)
	if !ok {
		return nil, wrongType("*v1.PersistentVolumeClaim", obj)
	}
	used := corev1.ResourceList{"count/persistentvolumeclaims": one(), corev1.ResourcePersistentVolumeClaims: one()}
	class := volume.GetPersistentVolumeClaimClass(claim)
	if class != "" {
		used[corev1.ResourceName(class+perStorageClass)+corev1.ResourcePersistentVolumeClaims] = one()
	}
	if storage, ok := claimStorage(claim); ok {
		used[corev1.ResourceRequestsStorage] = storage
		if class != "" {
			used[corev1.ResourceName(class+perStorageClass)+corev1.ResourceRequestsStorage] = storage
		}
	}
	return used, nil
}

// claimStorage is what a claim asks for, or what it was given in an expansion
// when that is more; in whole bytes.
func claimStorage(claim *corev1.PersistentVolumeClaim) (resource.Quantity, bool) {
	asked, ok := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if !ok {
		return resource.Quantity{}, false
	}
	most := asked.DeepCopy()
	if given, ok := claim.Status.AllocatedResources[corev1.ResourceStorage]; ok && given.Cmp(most) > 0 {
		most = given.DeepCopy()
	}
	most.RoundUp(0)
	return most, true
}

// claimMoved says whether a claim was given another size, or refers to other
// attribute classes.
func claimMoved(oldObj, nowObj runtime.Object) bool {
	old, ok1 := oldObj.(*corev1.PersistentVolumeClaim)
	now, ok2 := nowObj.(*corev1.PersistentVolumeClaim)
	if !ok1 || !ok2 {
		return false
	}
	before, after := old.Status.AllocatedResources[corev1.ResourceStorage], now.Status.AllocatedResources[corev1.ResourceStorage]
	return before.Cmp(after) != 0 || !maps.Equal(attributeClasses(old), attributeClasses(now))
}

// attributeClasses are the VolumeAttributesClasses a claim has, had or gets.
func attributeClasses(claim *corev1.PersistentVolumeClaim) map[string]bool {
	all := map[string]bool{}
	for _, name := range []*string{claim.Spec.VolumeAttributesClassName, claim.Status.CurrentVolumeAttributesClassName} {
		if name != nil && *name != "" {
			all[*name] = true
		}
	}
	if m := claim.Status.ModifyVolumeStatus; m != nil && m.TargetVolumeAttributesClassName != "" {
		all[m.TargetVolumeAttributesClassName] = true
	}
	return all
}

func claimInScope(s Scope, obj runtime.Object) (bool, error) {
	claim, ok := obj.(*corev1.PersistentVolumeClaim)
	if !ok {
		return false, wrongType("*v1.PersistentVolumeClaim", obj)
	}
	if s.ScopeName != corev1.ResourceQuotaScopeVolumeAttributesClass {
		return false, nil
	}
	names := slices.Sorted(maps.Keys(attributeClasses(claim)))
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		if ok, err := matchesValue(s, name); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}
