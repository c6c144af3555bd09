// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"fmt"
	"iter"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/podspec"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

const (
	maxParametersSize = 256 << 10
	maxParameters     = 512
)

func storageClass() *api.Kind {
	doc := storagev1.StorageClass{}.SwaggerDoc()
	return &api.Kind{
		Group: storagev1.GroupName, Name: "StorageClass", Resource: "storageclasses", Singular: "storageclass",
		ShortNames: []string{"sc"},
		Versions: []api.Version{{
			GroupVersion: storagev1.SchemeGroupVersion,
			New:          api.New[storagev1.StorageClass], NewList: api.NewList[storagev1.StorageClassList],
			Default: api.Default(defaultStorageClass),
		}},
		Storage: storagev1.SchemeGroupVersion,
		Prefix:  "/registry/storageclasses",
		New:     api.New[storagev1.StorageClass], NewList: api.NewList[storagev1.StorageClassList],
		Rules: api.For[*storagev1.StorageClass]{
			ValidateName:   apivalidation.NameIsDNSSubdomain,
			Validate:       validateStorageClass,
			ValidateUpdate: validateStorageClassUpdate,
			Warnings: func(c, _ *storagev1.StorageClass) []string {
				var warnings []string
				for i, term := range c.AllowedTopologies {
					for n, e := range term.MatchLabelExpressions {
						if message, deprecated := podspec.DeprecatedNodeLabel(e.Key); deprecated {
							path := field.NewPath("allowedTopologies").Index(i).Child("matchLabelExpressions").Index(n).Child("key")
							warnings = append(warnings, fmt.Sprintf("%s: %s", path, message))
						}
					}
				}
				return warnings
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Provisioner", doc["provisioner"]),
				table.String("ReclaimPolicy", doc["reclaimPolicy"]),
				table.String("VolumeBindingMode", doc["volumeBindingMode"]),
				table.String("AllowVolumeExpansion", doc["allowVolumeExpansion"]),
				table.Age(),
			},
			Cells: func(c *storagev1.StorageClass) []any {
				name, reclaim, mode := c.Name, corev1.PersistentVolumeReclaimDelete, storagev1.VolumeBindingImmediate
				if c.ReclaimPolicy != nil {
					reclaim = *c.ReclaimPolicy
				}
				if c.VolumeBindingMode != nil {
					mode = *c.VolumeBindingMode
				}
				expands := c.AllowVolumeExpansion != nil && *c.AllowVolumeExpansion
				return []any{name, c.Provisioner, string(reclaim), string(mode), expands, table.Since(c.CreationTimestamp)}
			},
			Chosen: defaultClass,
		}.Rules(),
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
	}
}

// defaultClass returns the class that claims without one get: the newest of
// those that say so, and of equally old ones the first by name.
func defaultClass(list iter.Seq[api.Object]) api.Object {
	var best *storagev1.StorageClass
	for obj := range list {
		c, ok := obj.(*storagev1.StorageClass)
		if !ok || c.Annotations["storageclass.kubernetes.io/is-default-class"] != "true" && c.Annotations["storageclass.beta.kubernetes.io/is-default-class"] != "true" {
			continue
		}
		if best == nil || best.CreationTimestamp.Before(&c.CreationTimestamp) ||
			best.CreationTimestamp.Equal(&c.CreationTimestamp) && c.Name < best.Name {
			best = c
		}
	}
	if best == nil {
		return nil
	}
	return best
}

// setDefault gives a field that is absent its default.
func setDefault[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

func defaultStorageClass(c *storagev1.StorageClass) {
	setDefault(&c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)
	setDefault(&c.VolumeBindingMode, storagev1.VolumeBindingImmediate)
}

func validateStorageClass(c *storagev1.StorageClass) field.ErrorList {
	errs := validateProvisioner(c.Provisioner, field.NewPath("provisioner"))
	errs = append(errs, validateParameters(c.Parameters, field.NewPath("parameters"))...)
	if p := c.ReclaimPolicy; p != nil && *p != "" {
		errs = append(errs, rule.OneOf(*p, field.NewPath("reclaimPolicy"), corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)...)
	}
	mode := field.NewPath("volumeBindingMode")
	if c.VolumeBindingMode == nil {
		errs = append(errs, field.Required(mode, ""))
	} else {
		errs = append(errs, rule.OneOf(*c.VolumeBindingMode, mode, storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)...)
	}
	return append(errs, validateTopologies(c.AllowedTopologies, field.NewPath("allowedTopologies"))...)
}

func validateStorageClassUpdate(c, old *storagev1.StorageClass) field.ErrorList {
	errs := validateStorageClass(c)
	errs = append(errs, rule.Unchanged(c.Parameters, old.Parameters, field.NewPath("parameters"))...)
	errs = append(errs, rule.Unchanged(c.Provisioner, old.Provisioner, field.NewPath("provisioner"))...)
	errs = append(errs, rule.Unchanged(c.ReclaimPolicy, old.ReclaimPolicy, field.NewPath("reclaimPolicy"))...)
	return append(errs, rule.Unchanged(c.VolumeBindingMode, old.VolumeBindingMode, field.NewPath("volumeBindingMode"))...)
}

func validateProvisioner(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return rule.QualifiedName(strings.ToLower(name), path)
}

func validateParameters(parameters map[string]string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(parameters) > maxParameters {
		errs = append(errs, field.TooLong(path, "", maxParameters))
	}
	if _, found := parameters[""]; found {
		errs = append(errs, field.Invalid(path, "", "field can not be empty."))
	}
	if size(parameters) > maxParametersSize {
		errs = append(errs, field.TooLong(path, "", maxParametersSize))
	}
	return errs
}

// size is the number of bytes in the keys and values of m.
func size(m map[string]string) int {
	n := 0
	for k, v := range m {
		n += len(k) + len(v)
	}
	return n
}

func validateTopologies(terms []corev1.TopologySelectorTerm, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	// A term without expressions counts as a duplicate of the terms before any
	// was looked at, once for each term.
	seen := make([]map[string]sets.Set[string], len(terms))
	for i, term := range terms {
		where := path.Index(i).Child("matchLabelExpressions")
		values := map[string]sets.Set[string]{}
		for n, e := range term.MatchLabelExpressions {
			errs = append(errs, validateTopologyRequirement(e, where.Index(n))...)
			if _, found := values[e.Key]; found {
				errs = append(errs, field.Duplicate(where.Index(n).Child("key"), e.Key))
			}
			values[e.Key] = sets.New(e.Values...)
		}
		for _, other := range seen {
			if apiequality.Semantic.DeepEqual(values, other) {
				errs = append(errs, field.Duplicate(where, ""))
			}
		}
		seen = append(seen, values)
	}
	return errs
}

func validateTopologyRequirement(e corev1.TopologySelectorLabelRequirement, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	values := path.Child("values")
	if len(e.Values) == 0 {
		errs = append(errs, field.Required(values, ""))
	}
	seen := sets.New[string]()
	for i, v := range e.Values {
		if seen.Has(v) {
			errs = append(errs, field.Duplicate(values.Index(i), v))
		}
		seen.Insert(v)
	}
	return append(errs, metavalidation.ValidateLabelName(e.Key, path.Child("key"))...)
}
