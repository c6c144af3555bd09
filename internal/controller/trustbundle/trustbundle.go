// SPDX-License-Identifier: Apache-2.0

// Package trustbundle publishes the authority of the API server's certificate
// as a ClusterTrustBundle, and deletes those of former authorities. The
// controller manager runs it.
package trustbundle

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"kaji/internal/client"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
)

const signer = "kubernetes.io/kube-apiserver-serving"

// Controller publishes the authority.
type Controller struct {
	bundles client.Typed[*certificatesv1.ClusterTrustBundle]
	queue   *queue.Queue[struct{}]
	want    *certificatesv1.ClusterTrustBundle
}

// New returns a controller that publishes a PEM bundle.
func New(api client.Interface, ca []byte, log *slog.Logger) *Controller {
	sum := sha256.Sum256(ca)
	c := &Controller{
		bundles: client.For[*certificatesv1.ClusterTrustBundle](api).With(client.InformerOptions{FieldSelector: "spec.signerName=" + signer}),
		want: &certificatesv1.ClusterTrustBundle{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s:%x", strings.ReplaceAll(signer, "/", ":"), sum[:12])},
			Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: string(ca)},
		},
	}
	c.queue = queue.New("ca_cert_publisher_cluster_trust_bundles", log, c.reconcile)
	again := func(*certificatesv1.ClusterTrustBundle) { c.queue.Add(struct{}{}) }
	c.bundles.AddHandler(client.Handler[*certificatesv1.ClusterTrustBundle]{Add: again, Delete: again,
		Update: func(_, b *certificatesv1.ClusterTrustBundle) { again(b) }})
	return c
}

// Run publishes until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.bundles.Informer()) {
		c.queue.Add(struct{}{})
		c.queue.Run(ctx, 1)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, _ struct{}) error {
	began := time.Now()
	err := c.publish(ctx)
	meter.From(ctx).Published(meter.TrustBundle, began, err)
	return err
}

func (c *Controller) publish(ctx context.Context) error {
	have, err := c.bundles.Cached("", c.want.Name)
	switch {
	case apierrors.IsNotFound(err):
		_, err = c.bundles.Create(ctx, c.want)
	case err == nil && have.Spec.TrustBundle != c.want.Spec.TrustBundle:
		mended := have.DeepCopy()
		mended.Spec.TrustBundle = c.want.Spec.TrustBundle
		_, err = c.bundles.Update(ctx, mended)
	}
	if err != nil {
		return err
	}
	for _, b := range c.bundles.CachedList("", labels.Everything()) {
		if b.Name == c.want.Name || b.DeletionTimestamp != nil {
			continue
		}
		if err := c.bundles.Delete(ctx, "", b.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}
