// SPDX-License-Identifier: Apache-2.0

// Package storageversionmigrator carries out StorageVersionMigrations (KEP-4192):
// it has every object of a resource written anew, so that all of them are stored
// in the present storage version and under the present encryption key. Of a
// CustomResourceDefinition it drops the versions that nothing is stored in any
// more from status.storedVersions.
//
// The controller manager runs it. It changes no object: a write is an apply of
// nothing, tied to the object's UID and resourceVersion, and whoever gets in
// between has done the work himself.
package storageversionmigrator

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"time"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/controller/queue"
	"kaji/internal/controller/served"
)

// Reasons of the conditions, and the manager of the empty applies.
const (
	manager   = "storage-version-migrator-controller"
	running   = "StorageVersionMigrationInProgress"
	succeeded = "StorageVersionMigrationSucceeded"
	failed    = "StorageVersionMigrationFailed"
)

// Migrations at the same time, and objects a list.
const (
	workers = 5
	page    = 500
)

// A resource that is not served may be one whose definition is on its way: how
// long after its making a migration waits for it, and how often it looks.
const (
	patience = time.Minute
	again    = time.Second
)

// Controller migrates. Make it with New.
type Controller struct {
	api        client.Interface
	served     served.Lister
	migrations client.Typed[*storagemigrationv1.StorageVersionMigration]
	queue      *queue.Queue[string]
	now        func() time.Time
	log        *slog.Logger
}

// New returns a controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{api: api, served: served.By(api), migrations: client.For[*storagemigrationv1.StorageVersionMigration](api), now: time.Now, log: log}
	c.queue = queue.New("storage_version_migrator", log, c.reconcile)
	c.migrations.AddHandler(client.Handler[*storagemigrationv1.StorageVersionMigration]{
		Add:    func(m *storagemigrationv1.StorageVersionMigration) { c.queue.Add(m.Name) },
		Update: func(_, m *storagemigrationv1.StorageVersionMigration) { c.queue.Add(m.Name) },
	})
	return c
}

// Run migrates until ctx ends. What was cut off is begun anew by the next Run.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.migrations.Informer()) {
		c.queue.Run(ctx, workers)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, name string) error {
	m, err := c.migrations.Cached("", name)
	if apierrors.IsNotFound(err) || err == nil && ended(m) {
		return nil
	}
	if err != nil {
		return err
	}
	m = m.DeepCopy()
	r, err := c.find(ctx, m.Spec.Resource)
	if err != nil {
		return err
	}
	if r == nil {
		if c.now().Before(m.CreationTimestamp.Add(patience)) {
			c.queue.AddAfter(name, again)
			return nil
		}
		_, err := c.report(ctx, m, storagemigrationv1.MigrationFailed, failed, "resource does not exist in discovery")
		return err
	}
	if m.Status.ResourceVersion == "" {
		if m.Status.ResourceVersion, err = c.newest(ctx, r); err != nil {
			return err
		}
	}
	if m, err = c.report(ctx, m, storagemigrationv1.MigrationRunning, running, ""); err != nil {
		return err
	}
	defined, err := c.definition(ctx, r)
	if err != nil {
		return err
	}
	switch err := c.rewrite(ctx, r); {
	case errors.Is(err, errUnhandled):
		c.log.Warn("migration failed", "migration", name, "err", err)
		_, err := c.report(ctx, m, storagemigrationv1.MigrationFailed, failed, "migration encountered unhandled error")
		return err
	case err != nil:
		return err
	}
	if err := c.forget(ctx, defined); err != nil {
		return err
	}
	_, err = c.report(ctx, m, storagemigrationv1.MigrationSucceeded, succeeded, "")
	return err
}

// ended says that a migration has come to its end.
func ended(m *storagemigrationv1.StorageVersionMigration) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, string(storagemigrationv1.MigrationSucceeded)) ||
		meta.IsStatusConditionTrue(m.Status.Conditions, string(storagemigrationv1.MigrationFailed))
}

// report writes a condition; a migration that ended does not run any more.
func (c *Controller) report(ctx context.Context, m *storagemigrationv1.StorageVersionMigration, kind storagemigrationv1.MigrationConditionType, reason, message string) (*storagemigrationv1.StorageVersionMigration, error) {
	if meta.IsStatusConditionTrue(m.Status.Conditions, string(kind)) {
		return m, nil
	}
	next := m.DeepCopy()
	if was := meta.FindStatusCondition(next.Status.Conditions, string(storagemigrationv1.MigrationRunning)); was != nil && kind != storagemigrationv1.MigrationRunning {
		was.Status, was.LastTransitionTime = metav1.ConditionFalse, metav1.Now()
	}
	meta.SetStatusCondition(&next.Status.Conditions, metav1.Condition{Type: string(kind), Status: metav1.ConditionTrue, Reason: reason, Message: message})
	return c.migrations.UpdateStatus(ctx, next)
}

// find returns the resource as it is served, nil when it is not.
func (c *Controller) find(ctx context.Context, of metav1.GroupResource) (*served.Resource, error) {
	all, err := c.served(ctx)
	i := slices.IndexFunc(all, func(r served.Resource) bool {
		return r.Group == of.Group && r.Resource == of.Resource && r.Can("list", "patch")
	})
	if i < 0 {
		return nil, err // with an error nobody knows whether it is served
	}
	return &all[i], nil
}

// newest returns the resourceVersion of a list.
func (c *Controller) newest(ctx context.Context, r *served.Resource) (string, error) {
	list, err := c.api.List(ctx, client.Resource{GroupVersionResource: r.GroupVersionResource}, metav1.ListOptions{Limit: 1})
	if err != nil {
		return "", err
	}
	m, err := meta.ListAccessor(list)
	if err != nil {
		return "", err
	}
	return m.GetResourceVersion(), nil
}

// errUnhandled ends a migration: an object cannot be written.
var errUnhandled = errors.New("an object cannot be written")

// rewrite has every object written.
func (c *Controller) rewrite(ctx context.Context, r *served.Resource) error {
	options := metav1.ListOptions{Limit: page}
	for {
		list, err := c.api.List(ctx, client.Resource{GroupVersionResource: r.GroupVersionResource}, options)
		if err != nil {
			return err
		}
		err = meta.EachListItem(list, func(obj runtime.Object) error { return c.touch(ctx, r, obj) })
		if err != nil {
			return err
		}
		m, err := meta.ListAccessor(list)
		if err != nil {
			return err
		}
		if options.Continue = m.GetContinue(); options.Continue == "" {
			return nil
		}
	}
}

// touch applies nothing to one object.
func (c *Controller) touch(ctx context.Context, r *served.Resource, obj runtime.Object) error {
	o, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	data, err := json.Marshal(map[string]any{
		"apiVersion": r.GroupVersion().String(), "kind": r.Kind,
		// Both: with the UID alone an object that was deleted and made again
		// would be refused as a change of the UID.
		"metadata": map[string]any{"uid": o.GetUID(), "resourceVersion": o.GetResourceVersion()},
	})
	if err != nil {
		return err
	}
	at := client.Resource{GroupVersionResource: r.GroupVersionResource, Namespace: o.GetNamespace()}
	_, err = c.api.Patch(ctx, at, o.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: manager})
	switch {
	case err == nil, apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return nil // written by somebody else, or gone
	case apierrors.IsTooManyRequests(err), apierrors.IsServerTimeout(err), apierrors.IsTimeout(err), apierrors.IsServiceUnavailable(err), ctx.Err() != nil:
		return err // begun anew later
	}
	return errors.Join(errUnhandled, err)
}
