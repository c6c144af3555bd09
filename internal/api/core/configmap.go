// SPDX-License-Identifier: Apache-2.0

package core

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

// maxDataSize is how many bytes a ConfigMap or Secret may hold.
const maxDataSize = corev1.MaxSecretSize

func configMap() *api.Kind {
	return &api.Kind{
		Name: "ConfigMap", Resource: "configmaps", Singular: "configmap",
		ShortNames: []string{"cm"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.ConfigMap], NewList: api.NewList[corev1.ConfigMapList],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/configmaps",
		New:     api.New[corev1.ConfigMap], NewList: api.NewList[corev1.ConfigMapList],
		Rules: api.For[*corev1.ConfigMap]{
			ValidateName:   apivalidation.NameIsDNSSubdomain,
			Validate:       validateConfigMap,
			ValidateUpdate: validateConfigMapUpdate,
			Columns: []metav1.TableColumnDefinition{
				table.Name(), table.String("Data", corev1.ConfigMap{}.SwaggerDoc()["data"]), table.Age(),
			},
			Cells: func(c *corev1.ConfigMap) []any {
				return []any{c.Name, int64(len(c.Data) + len(c.BinaryData)), table.Since(c.CreationTimestamp)}
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
	}
}

func validateConfigMap(c *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	size := 0
	for _, key := range rule.SortedKeys(c.Data) {
		path := field.NewPath("data").Key(key)
		errs = append(errs, rule.Messages(path, key, validation.IsConfigMapKey(key))...)
		if _, ok := c.BinaryData[key]; ok {
			errs = append(errs, field.Invalid(path, key, "duplicate of key present in binaryData"))
		}
		size += len(c.Data[key])
	}
	for _, key := range rule.SortedKeys(c.BinaryData) {
		errs = append(errs, rule.Messages(field.NewPath("binaryData").Key(key), key, validation.IsConfigMapKey(key))...)
		size += len(c.BinaryData[key])
	}
	if size > maxDataSize {
		errs = append(errs, field.TooLong(field.NewPath(""), "", maxDataSize))
	}
	return errs
}

const frozen = "field is immutable when `immutable` is set"

func validateConfigMapUpdate(c, old *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	if isTrue(old.Immutable) {
		if !isTrue(c.Immutable) {
			errs = append(errs, field.Forbidden(field.NewPath("immutable"), frozen))
		}
		if !reflect.DeepEqual(c.Data, old.Data) {
			errs = append(errs, field.Forbidden(field.NewPath("data"), frozen))
		}
		if !reflect.DeepEqual(c.BinaryData, old.BinaryData) {
			errs = append(errs, field.Forbidden(field.NewPath("binaryData"), frozen))
		}
	}
	return append(errs, validateConfigMap(c)...)
}

func isTrue(b *bool) bool { return b != nil && *b }
