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
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/controller/queue"
	"kaji/internal/controller/served"
)

// Reasons of the conditions, the message at the end, and the manager of the
// empty applies.
const (
	manager   = "storage-version-migrator-controller"
	running   = "MigrationRunning"
	completed = "MigrationCompleted"
	succeeded = "StorageVersionMigrationSucceeded"
	failed    = "StorageVersionMigrationFailed"
	done      = "Migration completed"
)

// Migrations at the same time, and objects a list.
const (
	workers = 5
	page    = 500
)

// verbs are those that a resource must have.
var verbs = [...]string{"update", "patch", "list"}

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
		Update: func(_, m *storagemigrationv1.StorageVersionMigration) { c.wake(m) },
		Delete: c.wake,
	})
	return c
}

// wake has a migration looked at, and those that wait for it.
func (c *Controller) wake(m *storagemigrationv1.StorageVersionMigration) {
	for _, other := range c.others(m) {
		c.queue.Add(other.Name)
	}
	c.queue.Add(m.Name)
}

// others are the migrations of the same resource that have not ended.
func (c *Controller) others(m *storagemigrationv1.StorageVersionMigration) []*storagemigrationv1.StorageVersionMigration {
	return slices.DeleteFunc(c.migrations.CachedList("", labels.Everything()), func(o *storagemigrationv1.StorageVersionMigration) bool {
		return o.Name == m.Name || o.Spec.Resource != m.Spec.Resource || ended(o)
	})
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
	if slices.ContainsFunc(c.others(m), func(o *storagemigrationv1.StorageVersionMigration) bool { return before(o, m) }) {
		return nil // its end wakes this one
	}
	// What has ended since must not be begun once more: its definition would
	// stay marked as being migrated.
	if m, err = c.present(ctx, name); err != nil || m == nil || ended(m) {
		return err
	}
	crd, err := c.definition(ctx, m.Spec.Resource)
	if err != nil {
		return err
	}
	if err := c.begin(ctx, crd, m.Name); err != nil {
		return err
	}
	if m, err = c.report(ctx, m, storagemigrationv1.MigrationRunning, running, "The migration is running"); err != nil {
		return err
	}
	m, err = c.migrate(ctx, m)
	var never *hopeless
	switch {
	case errors.Is(err, errLater):
		c.queue.AddAfter(name, again)
		return nil
	case errors.As(err, &never):
		c.log.Warn("migration failed", "migration", name, "err", err)
		return c.end(ctx, m, crd, storagemigrationv1.MigrationFailed, failed, never.message)
	case err != nil:
		return err
	}
	return c.end(ctx, m, crd, storagemigrationv1.MigrationSucceeded, succeeded, done)
}

// present returns a migration as it is now, nil when there is none. The
// controller's role lets it list, not get.
func (c *Controller) present(ctx context.Context, name string) (*storagemigrationv1.StorageVersionMigration, error) {
	found, err := c.migrations.List(ctx, "", metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

// before says that o comes before m: of the migrations of a resource one runs
// at a time, the oldest first.
func before(o, m *storagemigrationv1.StorageVersionMigration) bool {
	runs := func(m *storagemigrationv1.StorageVersionMigration) bool {
		return meta.IsStatusConditionTrue(m.Status.Conditions, string(storagemigrationv1.MigrationRunning))
	}
	if runs(o) != runs(m) {
		return runs(o)
	}
	return cmp.Or(o.CreationTimestamp.Compare(m.CreationTimestamp.Time), strings.Compare(o.Name, m.Name)) < 0
}

// hopeless ends a migration without success; its message is the condition's.
type hopeless struct {
	message string
	err     error
}

func (h *hopeless) Error() string { return fmt.Sprintf("%s: %v", h.message, h.err) }
func (h *hopeless) Unwrap() error { return h.err }

// errLater says that a resource may yet be served.
var errLater = errors.New("the resource is not served")

// migrate has the resource's objects written; it returns the migration as it is
// then.
func (c *Controller) migrate(ctx context.Context, m *storagemigrationv1.StorageVersionMigration) (*storagemigrationv1.StorageVersionMigration, error) {
	r, err := c.find(ctx, m.Spec.Resource)
	if err != nil {
		return m, err
	}
	if r == nil {
		if c.now().Before(m.CreationTimestamp.Add(patience)) {
			return m, errLater
		}
		return m, &hopeless{"resource does not exist in discovery", errors.New("nothing of this name is served")}
	}
	if !r.Can(verbs[:]...) {
		return m, &hopeless{fmt.Sprintf("resource %q does not support discovery operations: %v", r.GroupVersionResource.String(), verbs), errors.New("it cannot be migrated")}
	}
	if m.Status.ResourceVersion == "" {
		next := m.DeepCopy()
		if next.Status.ResourceVersion, err = c.newest(ctx, r); err != nil {
			return m, err
		}
		if next, err = c.migrations.UpdateStatus(ctx, next); err != nil {
			return m, err
		}
		m = next
	}
	return m, c.rewrite(ctx, r)
}

// end settles the definition, and then the migration: a migration that is cut
// off between them runs once more.
func (c *Controller) end(ctx context.Context, m *storagemigrationv1.StorageVersionMigration, crd *apiextensionsv1.CustomResourceDefinition, kind storagemigrationv1.MigrationConditionType, reason, message string) error {
	if err := c.settle(ctx, crd, kind == storagemigrationv1.MigrationSucceeded); err != nil {
		return err
	}
	_, err := c.report(ctx, m, kind, reason, message)
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
	if kind != storagemigrationv1.MigrationRunning {
		meta.SetStatusCondition(&next.Status.Conditions, metav1.Condition{Type: string(storagemigrationv1.MigrationRunning), Status: metav1.ConditionFalse, Reason: completed, Message: done})
	}
	meta.SetStatusCondition(&next.Status.Conditions, metav1.Condition{Type: string(kind), Status: metav1.ConditionTrue, Reason: reason, Message: message})
	return c.migrations.UpdateStatus(ctx, next)
}

// find returns the resource as it is served, nil when it is not.
func (c *Controller) find(ctx context.Context, of metav1.GroupResource) (*served.Resource, error) {
	all, err := c.served(ctx)
	i := slices.IndexFunc(all, func(r served.Resource) bool {
		return r.Group == of.Group && r.Resource == of.Resource
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
	return &hopeless{"migration encountered unhandled error", err}
}
