// SPDX-License-Identifier: Apache-2.0

package object

import (
	"reflect"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/api"
)

// keepTimestamps takes back the times in managedFields when nothing else
// differs, so that a write without effect stays one.
func keepTimestamps(obj, old api.Object) {
	now, before := obj.GetManagedFields(), old.GetManagedFields()
	if len(now) != len(before) {
		return
	}
	for i := range now {
		if !sameEntry(now[i], before[i]) {
			return
		}
	}
	same := api.Own(obj)
	same.SetManagedFields(before)
	same.SetResourceVersion(old.GetResourceVersion())
	if equality.Semantic.DeepEqual(same, old) {
		obj.SetManagedFields(before)
	}
}

func sameEntry(a, b metav1.ManagedFieldsEntry) bool {
	a.Time, b.Time = nil, nil
	return reflect.DeepEqual(a, b)
}
