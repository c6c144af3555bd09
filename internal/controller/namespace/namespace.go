// SPDX-License-Identifier: Apache-2.0

// Package namespace empties namespaces that are being deleted and lets them go:
// everything in them is deleted, pods first, and while something remains the
// namespace's conditions name it. The controller manager runs it.
//
// It never waits for one group of the API: what cannot be asked or deleted is
// told in a condition, and all the rest goes on.
package namespace

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"

	"kaji/internal/client"
	"kaji/internal/controller/queue"
	"kaji/internal/controller/served"
)

const workers = 10

// The first and the longest wait before a namespace is looked at again.
const (
	firstLook = 50 * time.Millisecond
	lastLook  = 8 * time.Second
)

// grace is how long nothing is looked for: what another API server lets in at the
// last moment, before it sees that the namespace ends, must be found. Upstream
// waits five seconds.
const grace = 2 * time.Second

// Config says what the controller works with.
type Config struct {
	Client client.Interface
	// Served tells what namespaces can hold; nil asks the API server.
	Served served.Lister
	Logger *slog.Logger
}

// Controller empties namespaces.
type Controller struct {
	api        client.Interface
	served     served.Lister
	namespaces client.Typed[*corev1.Namespace]
	queue      *queue.Queue[string]
	log        *slog.Logger
}

// New returns the controller.
func New(cfg Config) *Controller {
	c := &Controller{api: cfg.Client, served: cfg.Served, namespaces: client.For[*corev1.Namespace](cfg.Client), log: cfg.Logger}
	if c.served == nil {
		c.served = served.By(cfg.Client)
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.queue = queue.New("namespace", cfg.Logger, c.reconcile).Between(5*time.Millisecond, time.Minute)
	seen := func(ns *corev1.Namespace) {
		if ns.DeletionTimestamp != nil {
			c.queue.Add(ns.Name)
		}
	}
	c.namespaces.AddHandler(client.Handler[*corev1.Namespace]{Add: seen, Update: func(_, ns *corev1.Namespace) { seen(ns) }})
	return c
}

// Run empties namespaces until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.namespaces.Informer()) {
		c.queue.Run(ctx, workers)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, name string) error {
	ns, err := c.namespaces.Get(ctx, "", name)
	if apierrors.IsNotFound(err) || err == nil && (ns.DeletionTimestamp == nil || !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes)) {
		return nil
	}
	if err != nil {
		return err
	}
	if ns.Status.Phase != corev1.NamespaceTerminating {
		changed := ns.DeepCopy()
		changed.Status.Phase = corev1.NamespaceTerminating
		if ns, err = c.namespaces.UpdateStatus(ctx, changed); err != nil {
			return ignoreNotFound(err)
		}
	}
	if left := time.Until(ns.DeletionTimestamp.Add(grace)); left > 0 {
		c.queue.AddAfter(name, left)
		return nil
	}
	found := c.empty(ctx, ns)
	if ns, err = c.tell(ctx, ns, found); err != nil {
		return ignoreNotFound(err)
	}
	if err := found.err(); err != nil {
		return err
	}
	if left := found.left(); left > 0 {
		// Most of what was deleted is gone at once: look soon, then more
		// rarely while it lasts.
		since := time.Since(ns.DeletionTimestamp.Add(grace))
		c.queue.AddAfter(name, min(max(firstLook, since/4), left/2+time.Second, lastLook))
		return nil
	}
	return ignoreNotFound(c.finalize(ctx, ns))
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// finalize takes the finalizer of this controller away, which lets the API
// server remove the namespace.
func (c *Controller) finalize(ctx context.Context, ns *corev1.Namespace) error {
	changed := ns.DeepCopy()
	changed.Spec.Finalizers = slices.DeleteFunc(changed.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	r := c.namespaces.Resource("")
	r.Subresource = "finalize"
	_, err := c.api.Update(ctx, r, ns.Name, changed, metav1.UpdateOptions{})
	return err
}

// empty deletes what the namespace holds and returns what is left. Pods come
// first: while they run they may need what else is there (KEP-5080).
func (c *Controller) empty(ctx context.Context, ns *corev1.Namespace) *findings {
	found := newFindings()
	all, err := c.served(ctx)
	if err != nil {
		found.undiscovered(err)
		var some *discovery.ErrGroupDiscoveryFailed
		if !errors.As(err, &some) {
			return found
		}
	}
	all = slices.DeleteFunc(all, func(r served.Resource) bool { return !r.Namespaced || !r.Can("delete") })
	pods := corev1.SchemeGroupVersion.WithResource("pods")
	if slices.ContainsFunc(all, func(r served.Resource) bool { return r.GroupVersionResource == pods }) {
		c.remove(ctx, ns, served.Resource{GroupVersionResource: pods, Verbs: []string{"list", "delete", "deletecollection"}}, found)
		if found.remains() {
			return found
		}
	}
	for _, r := range all {
		if r.GroupVersionResource != pods {
			c.remove(ctx, ns, r, found)
		}
	}
	return found
}
