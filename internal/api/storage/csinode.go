// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"fmt"

	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

const maxNodeIDLength = 256

func csiNode() *api.Kind {
	return &api.Kind{
		Group: storagev1.GroupName, Name: "CSINode", Resource: "csinodes", Singular: "csinode",
		Versions: []api.Version{{
			GroupVersion: storagev1.SchemeGroupVersion,
			New:          api.New[storagev1.CSINode], NewList: api.NewList[storagev1.CSINodeList],
		}},
		Storage:             storagev1.SchemeGroupVersion,
		Prefix:              "/registry/csinodes",
		ReturnDeletedObject: true,
		New:                 api.New[storagev1.CSINode], NewList: api.NewList[storagev1.CSINodeList],
		Rules: api.For[*storagev1.CSINode]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, n *storagev1.CSINode) {
				n.Status = storagev1.CSINodeStatus{}
			},
			PrepareForUpdate: func(_ context.Context, n, old *storagev1.CSINode) {
				n.Status = old.Status
			},
			Validate:       validateCSINode,
			ValidateUpdate: validateCSINodeUpdate,
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.Integer("Drivers", "Drivers indicates the number of CSI drivers registered on the node"),
				table.Age(),
			},
			Cells: func(n *storagev1.CSINode) []any {
				return []any{n.Name, int64(len(n.Spec.Drivers)), table.Since(n.CreationTimestamp)}
			},
		}.Rules(),
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, n, old *storagev1.CSINode) {
				n.Spec = old.Spec
				metav1.ResetObjectMetaForStatus(&n.ObjectMeta, &old.ObjectMeta)
			}),
			ResetFields: []string{"metadata", "spec"},
		},
	}
}

func validateCSINode(n *storagev1.CSINode) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for i := range n.Spec.Drivers {
		d, path := &n.Spec.Drivers[i], field.NewPath("spec", "drivers").Index(i)
		errs = append(errs, validateDriverName(d.Name, path.Child("name"))...)
		if d.NodeID == "" {
			errs = append(errs, field.Required(path.Child("nodeID"), ""))
		}
		if len(d.NodeID) > maxNodeIDLength {
			errs = append(errs, field.Invalid(path.Child("nodeID"), d.NodeID, fmt.Sprintf("must be %d characters or less", maxNodeIDLength)))
		}
		if a := d.Allocatable; a != nil && a.Count != nil {
			errs = append(errs, apivalidation.ValidateNonnegativeField(int64(*a.Count), path.Child("allocatable", "count"))...)
		}
		if names.Has(d.Name) {
			errs = append(errs, field.Duplicate(path.Child("name"), d.Name))
		}
		names.Insert(d.Name)
		errs = append(errs, validateTopologyKeys(d.TopologyKeys, path)...)
	}
	return errs
}

func validateTopologyKeys(keys []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for _, key := range keys {
		if key == "" {
			errs = append(errs, field.Required(path, ""))
		}
		if seen.Has(key) {
			errs = append(errs, field.Duplicate(path, key))
		}
		seen.Insert(key)
		errs = append(errs, rule.QualifiedName(key, path)...)
	}
	return errs
}

// validateCSINodeUpdate lets drivers come and go, but not change in more than
// what they can allocate.
func validateCSINodeUpdate(n, old *storagev1.CSINode) field.ErrorList {
	errs := validateCSINode(n)
	for i := range old.Spec.Drivers {
		for k := range n.Spec.Drivers {
			was, now := old.Spec.Drivers[i].DeepCopy(), n.Spec.Drivers[k].DeepCopy()
			if was.Name != now.Name {
				continue
			}
			was.Allocatable, now.Allocatable = nil, nil
			if !apiequality.Semantic.DeepEqual(was, now) {
				errs = append(errs, field.Invalid(field.NewPath("spec", "drivers"), badvalue.Of(now), apivalidation.FieldImmutableErrorMsg))
			}
		}
	}
	return errs
}
