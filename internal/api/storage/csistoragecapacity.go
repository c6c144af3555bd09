// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"fmt"

	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/podspec"
	"kaji/internal/api/rule"
)

func csiStorageCapacity() *api.Kind {
	return &api.Kind{
		Group: storagev1.GroupName, Name: "CSIStorageCapacity", Resource: "csistoragecapacities", Singular: "csistoragecapacity",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: storagev1.SchemeGroupVersion,
			New:          api.New[storagev1.CSIStorageCapacity], NewList: api.NewList[storagev1.CSIStorageCapacityList],
		}},
		Storage: storagev1.SchemeGroupVersion,
		Prefix:  "/registry/csistoragecapacities",
		New:     api.New[storagev1.CSIStorageCapacity], NewList: api.NewList[storagev1.CSIStorageCapacityList],
		Rules: api.For[*storagev1.CSIStorageCapacity]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			Validate: func(c *storagev1.CSIStorageCapacity) field.ErrorList {
				return validateCapacity(c, metavalidation.LabelSelectorValidationOptions{})
			},
			ValidateUpdate: func(c, old *storagev1.CSIStorageCapacity) field.ErrorList {
				// A selector stored before its values were checked may stand.
				var opts metavalidation.LabelSelectorValidationOptions
				opts.AllowInvalidLabelValueInSelector = len(metavalidation.ValidateLabelSelector(old.NodeTopology, opts, nil)) > 0
				errs := validateCapacity(c, opts)
				if !apiequality.Semantic.DeepEqual(c.NodeTopology, old.NodeTopology) {
					errs = append(errs, field.Invalid(field.NewPath("nodeTopology"), c.NodeTopology, apivalidation.FieldImmutableErrorMsg))
				}
				return append(errs, apivalidation.ValidateImmutableField(c.StorageClassName, old.StorageClassName, field.NewPath("storageClassName"))...)
			},
			Warnings: func(c, _ *storagev1.CSIStorageCapacity) []string { return topologyWarnings(c) },
		}.Rules(),
	}
}

func validateCapacity(c *storagev1.CSIStorageCapacity, opts metavalidation.LabelSelectorValidationOptions) field.ErrorList {
	errs := metavalidation.ValidateLabelSelector(c.NodeTopology, opts, field.NewPath("nodeTopology"))
	errs = append(errs, rule.Subdomain(c.StorageClassName, field.NewPath("storageClassName"))...)
	if c.Capacity != nil {
		errs = append(errs, rule.NonNegative(*c.Capacity, field.NewPath("capacity"))...)
	}
	return errs
}

func topologyWarnings(c *storagev1.CSIStorageCapacity) []string {
	if c.NodeTopology == nil {
		return nil
	}
	var warnings []string
	path := field.NewPath("nodeTopology")
	for i, e := range c.NodeTopology.MatchExpressions {
		if message, deprecated := podspec.DeprecatedNodeLabel(e.Key); deprecated {
			warnings = append(warnings, fmt.Sprintf("%s: %s", path.Child("matchExpressions").Index(i).Child("key"), message))
		}
	}
	for _, key := range rule.SortedKeys(c.NodeTopology.MatchLabels) {
		if message, deprecated := podspec.DeprecatedNodeLabel(key); deprecated {
			warnings = append(warnings, fmt.Sprintf("%s: %s", path.Child("matchLabels").Child(key), message))
		}
	}
	return warnings
}
