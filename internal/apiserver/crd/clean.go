// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"context"
	"fmt"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	kinds "kaji/internal/api/apiextensions"
	"kaji/internal/client"
)

// How long a deleted definition waits for its objects' finalizers, and how
// often it looks.
const (
	cleanTimeout = 5 * time.Minute
	cleanEvery   = 100 * time.Millisecond
)

// clean deletes the objects of a deleted definition and then lets it go, in a
// goroutine of its own.
func (c *Controller) clean(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition) {
	if !slices.Contains(crd.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending[crd.Name] {
		return
	}
	c.ending[crd.Name] = true
	c.cleaners.Go(func() {
		defer func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.ending, crd.Name)
		}()
		for ctx.Err() == nil {
			done, err := c.cleanOnce(ctx, crd.Name)
			if done {
				return
			}
			if err != nil {
				c.log.Warn("objects of a deleted custom resource definition remain", "name", crd.Name, "err", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
}

// cleanOnce works on the newest state of a definition; done says that nothing
// is left to do.
func (c *Controller) cleanOnce(ctx context.Context, name string) (done bool, err error) {
	entry, found, err := c.cfg.Cache.Get(ctx, c.cfg.Kind, "", name)
	if err != nil || !found {
		return !found && err == nil, err
	}
	if !slices.Contains(definitionOf(entry).Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer) {
		return true, nil
	}
	crd := wholeOf(entry).DeepCopy()
	kinds.SetCondition(crd, terminating(apiextensionsv1.ConditionTrue, "InstanceDeletionInProgress", "CustomResource deletion is in progress"))
	status := client.Resource{GroupVersionResource: resource, Subresource: "status"}
	obj, err := c.cfg.Client.Update(ctx, status, crd.Name, crd, metav1.UpdateOptions{FieldManager: "kube-apiserver"})
	if err != nil {
		return false, err
	}
	crd = obj.(*apiextensionsv1.CustomResourceDefinition).DeepCopy()
	condition, failed := c.cleanObjects(ctx, crd)
	kinds.SetCondition(crd, condition)
	if failed == nil {
		crd.Finalizers = slices.DeleteFunc(crd.Finalizers, func(f string) bool { return f == apiextensionsv1.CustomResourceCleanupFinalizer })
	}
	_, err = c.cfg.Client.Update(ctx, status, crd.Name, crd, metav1.UpdateOptions{FieldManager: "kube-apiserver"})
	if failed != nil {
		return false, failed
	}
	return err == nil, err
}

func terminating(status apiextensionsv1.ConditionStatus, reason, message string) apiextensionsv1.CustomResourceDefinitionCondition {
	return apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.Terminating, Status: status, Reason: reason, Message: message}
}

// cleanObjects deletes all objects of a definition and waits until they are
// gone. It returns the condition to set.
func (c *Controller) cleanObjects(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition) (apiextensionsv1.CustomResourceDefinitionCondition, error) {
	c.mu.Lock()
	d := c.served[crd.Name]
	c.mu.Unlock()
	if d == nil {
		return terminating(apiextensionsv1.ConditionFalse, "NeverEstablished", "resource was never established"), nil
	}
	at, err := c.cfg.Cache.Snapshot(ctx, d.kind)
	if err != nil {
		return terminating(apiextensionsv1.ConditionTrue, "InstanceDeletionFailed", fmt.Sprintf("could not list instances: %v", err)), err
	}
	namespaces := map[string]bool{}
	for e := range at.All("", "") {
		namespaces[e.Object.GetNamespace()] = true
	}
	gvr := d.kind.Storage.WithResource(d.kind.Resource)
	for i := range d.kind.Versions {
		if !d.kind.Versions[i].Unserved {
			gvr.Version = d.kind.Versions[i].GroupVersion.Version
		}
	}
	var errs []error
	for namespace := range namespaces {
		if err := c.cfg.Client.DeleteCollection(ctx, client.Resource{GroupVersionResource: gvr, Namespace: namespace}, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			errs = append(errs, err)
		}
	}
	if err := utilerrors.NewAggregate(errs); err != nil {
		return terminating(apiextensionsv1.ConditionTrue, "InstanceDeletionFailed", fmt.Sprintf("could not issue all deletes: %v", err)), err
	}
	deadline := time.Now().Add(cleanTimeout)
	for at.Len() > 0 {
		if time.Now().After(deadline) {
			err = fmt.Errorf("%d remain", at.Len())
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(cleanEvery):
		}
		if err == nil {
			at, err = c.cfg.Cache.Snapshot(ctx, d.kind)
		}
		if err != nil {
			return terminating(apiextensionsv1.ConditionTrue, "InstanceDeletionCheck", fmt.Sprintf("could not confirm zero CustomResources remaining: %v", err)), err
		}
	}
	return terminating(apiextensionsv1.ConditionFalse, "InstanceDeletionCompleted", "removed all instances"), nil
}
