// SPDX-License-Identifier: Apache-2.0

package storageversionmigrator

import (
	"context"
	"encoding/json"
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
)

func definitions() client.Resource {
	return client.Resource{GroupVersionResource: apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")}
}

// definition returns the CustomResourceDefinition of a resource, nil for others.
func (c *Controller) definition(ctx context.Context, r metav1.GroupResource) (*apiextensionsv1.CustomResourceDefinition, error) {
	if r.Group == "" {
		return nil, nil
	}
	obj, err := c.api.Get(ctx, definitions(), r.Resource+"."+r.Group, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if crd, ok := obj.(*apiextensionsv1.CustomResourceDefinition); ok {
		return crd, nil
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return crd, runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, crd)
	}
	return nil, nil
}

// definer owns the condition and the stored versions.
const definer = "migration-runner-controller"

// begin marks a definition: its objects are being migrated, as it is now.
func (c *Controller) begin(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition, migration string) error {
	if crd == nil {
		return nil
	}
	message := "Migration " + migration + " is running"
	if is := migrating(crd); is != nil && is.Status == apiextensionsv1.ConditionTrue && is.Message == message {
		return nil // begun before; what has changed since shows by the generation
	}
	return c.mark(ctx, crd, apiextensionsv1.ConditionTrue, running, message, nil)
}

// settle says how a definition's migration ended. After a success it drops the
// versions nothing is stored in any more. A definition that changed meanwhile
// keeps them: what was written then may be stored in either version.
func (c *Controller) settle(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition, success bool) error {
	if crd == nil {
		return nil
	}
	crd, err := c.definition(ctx, metav1.GroupResource{Group: crd.Spec.Group, Resource: crd.Spec.Names.Plural})
	if err != nil || crd == nil {
		return err
	}
	var stored []string
	if is := migrating(crd); is != nil && is.ObservedGeneration == crd.Generation {
		for _, v := range crd.Spec.Versions {
			if v.Storage {
				stored = []string{v.Name}
			}
		}
	}
	switch {
	case !success:
		return c.mark(ctx, crd, apiextensionsv1.ConditionFalse, "MigrationFailed", "The migration has failed", nil)
	case stored == nil:
		return c.mark(ctx, crd, apiextensionsv1.ConditionFalse, "MigrationSucceeded", "The migration has succeeded but the stored versions have not been updated due to a generation mismatch", nil)
	}
	return c.mark(ctx, crd, apiextensionsv1.ConditionFalse, "MigrationSucceeded", "The migration has succeeded and the stored versions have been updated", stored)
}

// migrating is the condition that tells of migrations.
func migrating(crd *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinitionCondition {
	i := slices.IndexFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.StorageMigrating
	})
	if i < 0 {
		return nil
	}
	return &crd.Status.Conditions[i]
}

// mark applies the condition, and the stored versions unless they stay. What
// changed since it was read makes a conflict, and the migration is tried again.
func (c *Controller) mark(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition, status apiextensionsv1.ConditionStatus, reason, message string, stored []string) error {
	now := metav1.NewTime(c.now())
	if is := migrating(crd); is != nil && is.Status == status {
		now = is.LastTransitionTime
	}
	next := map[string]any{"conditions": []apiextensionsv1.CustomResourceDefinitionCondition{{
		Type: apiextensionsv1.StorageMigrating, Status: status, LastTransitionTime: now, Reason: reason, Message: message, ObservedGeneration: crd.Generation,
	}}}
	if stored != nil {
		next["storedVersions"] = stored
	}
	patch, err := json.Marshal(map[string]any{
		"apiVersion": apiextensionsv1.SchemeGroupVersion.String(), "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": crd.Name, "uid": crd.UID, "resourceVersion": crd.ResourceVersion}, "status": next,
	})
	if err != nil {
		return err
	}
	at := definitions()
	at.Subresource = "status"
	force := true
	_, err = c.api.Patch(ctx, at, crd.Name, types.ApplyPatchType, patch, metav1.PatchOptions{FieldManager: definer, Force: &force})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
