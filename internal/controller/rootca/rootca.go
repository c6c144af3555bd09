// SPDX-License-Identifier: Apache-2.0

// Package rootca publishes the authority of the API server's certificate in
// every namespace, as the ConfigMap kube-root-ca.crt that pods mount. The
// controller manager runs it.
package rootca

import (
	"context"
	"log/slog"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
)

const (
	configMapName = "kube-root-ca.crt"
	dataKey       = "ca.crt"
	// description is upstream's word to those who find the ConfigMap.
	descriptionKey = "kubernetes.io/description"
	description    = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. " +
		"No other usage is guaranteed across distributions of Kubernetes clusters."
)

// Controller keeps the ConfigMaps.
type Controller struct {
	namespaces client.Typed[*corev1.Namespace]
	maps       client.Typed[*corev1.ConfigMap]
	queue      *queue.Queue[string]
	ca         string
}

// New returns a controller that publishes a PEM bundle.
func New(api client.Interface, ca []byte, log *slog.Logger) *Controller {
	c := &Controller{ca: string(ca), namespaces: client.For[*corev1.Namespace](api),
		maps: client.For[*corev1.ConfigMap](api).With(client.InformerOptions{FieldSelector: "metadata.name=" + configMapName})}
	c.queue = queue.New("root_ca_cert_publisher", log, c.reconcile)
	c.namespaces.AddHandler(client.Handler[*corev1.Namespace]{
		Add:    func(ns *corev1.Namespace) { c.queue.Add(ns.Name) },
		Update: func(_, ns *corev1.Namespace) { c.queue.Add(ns.Name) },
	})
	changed := func(m *corev1.ConfigMap) { c.queue.Add(m.Namespace) }
	c.maps.AddHandler(client.Handler[*corev1.ConfigMap]{Update: func(_, m *corev1.ConfigMap) { changed(m) }, Delete: changed})
	return c
}

// Run keeps them until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.namespaces.Informer(), c.maps.Informer()) {
		c.queue.Run(ctx, 1)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, namespace string) error {
	began := time.Now()
	err := c.publish(ctx, namespace)
	meter.From(ctx).Published(meter.RootCA, began, err)
	return err
}

func (c *Controller) publish(ctx context.Context, namespace string) error {
	ns, err := c.namespaces.Cached("", namespace)
	if apierrors.IsNotFound(err) || err == nil && ns.Status.Phase == corev1.NamespaceTerminating {
		return nil
	}
	if err != nil {
		return err
	}
	have, err := c.maps.Cached(namespace, configMapName)
	switch {
	case apierrors.IsNotFound(err):
		_, err = c.maps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: configMapName, Annotations: map[string]string{descriptionKey: description}},
			Data:       map[string]string{dataKey: c.ca},
		})
		if apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		return err
	case err != nil:
		return err
	}
	if maps.Equal(have.Data, map[string]string{dataKey: c.ca}) && have.Annotations[descriptionKey] != "" {
		return nil
	}
	mended := have.DeepCopy()
	mended.Data = map[string]string{dataKey: c.ca}
	if mended.Annotations == nil {
		mended.Annotations = map[string]string{}
	}
	mended.Annotations[descriptionKey] = description
	_, err = c.maps.Update(ctx, mended)
	return err
}
