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
	"kaji/internal/controller/served"
)

func definitions() client.Resource {
	return client.Resource{GroupVersionResource: apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")}
}

// definition returns the CustomResourceDefinition of a resource, nil for others.
func (c *Controller) definition(ctx context.Context, r *served.Resource) (*apiextensionsv1.CustomResourceDefinition, error) {
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

// forget drops from a definition, as it was before all objects were written,
// the versions nothing is stored in any more. One that changed meanwhile keeps
// them: what was written then may be stored in either version.
func (c *Controller) forget(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition) error {
	if crd == nil {
		return nil
	}
	i := slices.IndexFunc(crd.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Storage })
	if i < 0 {
		return nil
	}
	stored := []string{crd.Spec.Versions[i].Name}
	if slices.Equal(crd.Status.StoredVersions, stored) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": crd.ResourceVersion},
		"status":   map[string]any{"storedVersions": stored},
	})
	if err != nil {
		return err
	}
	at := definitions()
	at.Subresource = "status"
	_, err = c.api.Patch(ctx, at, crd.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
