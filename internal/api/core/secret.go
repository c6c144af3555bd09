// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"
	"encoding/json"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func secret() *api.Kind {
	doc := corev1.Secret{}.SwaggerDoc()
	return &api.Kind{
		Name: "Secret", Resource: "secrets", Singular: "secret",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.Secret], NewList: api.NewList[corev1.SecretList],
			Default: api.Default(defaultSecret),
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/secrets",
		New:     api.New[corev1.Secret], NewList: api.NewList[corev1.SecretList],
		Rules: api.For[*corev1.Secret]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForUpdate: func(_ context.Context, s, old *corev1.Secret) {
				if s.Type == "" {
					s.Type = old.Type
				}
			},
			Validate:       validateSecret,
			ValidateUpdate: validateSecretUpdate,
			Warnings:       secretWarnings,
			Fields:         func(s *corev1.Secret) fields.Set { return fields.Set{"type": string(s.Type)} },
			Columns: []metav1.TableColumnDefinition{
				table.Name(), table.String("Type", doc["type"]), table.String("Data", doc["data"]), table.Age(),
			},
			Cells: func(s *corev1.Secret) []any {
				return []any{s.Name, string(s.Type), int64(len(s.Data)), table.Since(s.CreationTimestamp)}
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
	}
}

func defaultSecret(s *corev1.Secret) {
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
	// stringData is only a way to write data.
	for key, value := range s.StringData {
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		s.Data[key] = []byte(value)
	}
	s.StringData = nil
}

func validateSecret(s *corev1.Secret) field.ErrorList {
	path := field.NewPath("data")
	var errs field.ErrorList
	size := 0
	for _, key := range rule.SortedKeys(s.Data) {
		errs = append(errs, rule.Messages(path.Key(key), key, validation.IsConfigMapKey(key))...)
		size += len(s.Data[key])
	}
	if size > maxDataSize {
		errs = append(errs, field.TooLong(path, "", maxDataSize))
	}
	need := func(key string) {
		if _, ok := s.Data[key]; !ok {
			errs = append(errs, field.Required(path.Key(key), ""))
		}
	}
	needJSON := func(key string) {
		need(key)
		if content, ok := s.Data[key]; ok {
			var object map[string]any
			if err := json.Unmarshal(content, &object); err != nil {
				errs = append(errs, field.Invalid(path.Key(key), "<secret contents redacted>", err.Error()))
			}
		}
	}
	switch s.Type {
	case corev1.SecretTypeServiceAccountToken:
		if s.Annotations[corev1.ServiceAccountNameKey] == "" {
			errs = append(errs, field.Required(field.NewPath("metadata", "annotations").Key(corev1.ServiceAccountNameKey), ""))
		}
	case corev1.SecretTypeDockercfg:
		needJSON(corev1.DockerConfigKey)
	case corev1.SecretTypeDockerConfigJson:
		needJSON(corev1.DockerConfigJsonKey)
	case corev1.SecretTypeBasicAuth:
		_, user := s.Data[corev1.BasicAuthUsernameKey]
		_, password := s.Data[corev1.BasicAuthPasswordKey]
		if !user && !password {
			need(corev1.BasicAuthUsernameKey)
			need(corev1.BasicAuthPasswordKey)
		}
	case corev1.SecretTypeSSHAuth:
		if len(s.Data[corev1.SSHAuthPrivateKey]) == 0 {
			errs = append(errs, field.Required(path.Key(corev1.SSHAuthPrivateKey), ""))
		}
	case corev1.SecretTypeTLS:
		need(corev1.TLSCertKey)
		need(corev1.TLSPrivateKeyKey)
	}
	return errs
}

func validateSecretUpdate(s, old *corev1.Secret) field.ErrorList {
	errs := apivalidation.ValidateImmutableField(s.Type, old.Type, field.NewPath("type"))
	if isTrue(old.Immutable) {
		if !isTrue(s.Immutable) {
			errs = append(errs, field.Forbidden(field.NewPath("immutable"), frozen))
		}
		if !reflect.DeepEqual(s.Data, old.Data) {
			errs = append(errs, field.Forbidden(field.NewPath("data"), frozen))
		}
	}
	return append(errs, validateSecret(s)...)
}
