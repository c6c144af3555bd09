// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

// enforceMountableSecrets limits an account's pods to the secrets it lists.
const enforceMountableSecrets = "kubernetes.io/enforce-mountable-secrets"

func serviceAccount() *api.Kind {
	return &api.Kind{
		Name: "ServiceAccount", Resource: "serviceaccounts", Singular: "serviceaccount",
		ShortNames: []string{"sa"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.ServiceAccount], NewList: api.NewList[corev1.ServiceAccountList],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/serviceaccounts",
		New:     api.New[corev1.ServiceAccount], NewList: api.NewList[corev1.ServiceAccountList],
		Rules: api.For[*corev1.ServiceAccount]{
			ValidateName:     apivalidation.ValidateServiceAccountName,
			PrepareForCreate: func(_ context.Context, s *corev1.ServiceAccount) { cleanSecretReferences(s) },
			PrepareForUpdate: func(_ context.Context, s, _ *corev1.ServiceAccount) { cleanSecretReferences(s) },
			Warnings:         serviceAccountWarnings,
			Columns:          []metav1.TableColumnDefinition{table.Name(), table.Age()},
			Cells: func(s *corev1.ServiceAccount) []any {
				return []any{s.Name, table.Since(s.CreationTimestamp)}
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
	}
}

// cleanSecretReferences keeps only the names of the secrets.
func cleanSecretReferences(s *corev1.ServiceAccount) {
	for i := range s.Secrets {
		s.Secrets[i] = corev1.ObjectReference{Name: s.Secrets[i].Name}
	}
}

func serviceAccountWarnings(s, old *corev1.ServiceAccount) []string {
	value, ok := s.Annotations[enforceMountableSecrets]
	if !ok || old != nil && old.Annotations[enforceMountableSecrets] == value {
		return nil
	}
	return []string{fmt.Sprintf("%s: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets",
		field.NewPath("metadata", "annotations").Key(enforceMountableSecrets))}
}
