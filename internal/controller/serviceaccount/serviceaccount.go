// SPDX-License-Identifier: Apache-2.0

// Package serviceaccount sees to it that every namespace has the ServiceAccount
// "default". The controller manager runs it.
package serviceaccount

import (
	"context"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/queue"
)

const name = "default"

// Controller creates the missing accounts.
type Controller struct {
	namespaces client.Typed[*corev1.Namespace]
	accounts   client.Typed[*corev1.ServiceAccount]
	queue      *queue.Queue[string]
}

// New returns the controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{namespaces: client.For[*corev1.Namespace](api), accounts: client.For[*corev1.ServiceAccount](api)}
	c.queue = queue.New("serviceaccount", log, c.reconcile)
	c.namespaces.AddHandler(client.Handler[*corev1.Namespace]{
		Add:    func(ns *corev1.Namespace) { c.queue.Add(ns.Name) },
		Update: func(_, ns *corev1.Namespace) { c.queue.Add(ns.Name) },
	})
	c.accounts.AddHandler(client.Handler[*corev1.ServiceAccount]{
		Delete: func(sa *corev1.ServiceAccount) {
			if sa.Name == name {
				c.queue.Add(sa.Namespace)
			}
		},
	})
	return c
}

// Run creates accounts until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.namespaces.Informer(), c.accounts.Informer()) {
		c.queue.Run(ctx, 1)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, namespace string) error {
	ns, err := c.namespaces.Cached("", namespace)
	if apierrors.IsNotFound(err) || err == nil && ns.Status.Phase != corev1.NamespaceActive {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := c.accounts.Cached(namespace, name); err == nil {
		return nil
	}
	_, err = c.accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})
	if apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return err
}
