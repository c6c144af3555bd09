// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"context"
	"log/slog"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/queue"
)

// podRequestLife is how long pods' requests stay: a node asks again if it needs
// another.
const podRequestLife = 15 * time.Minute

// PodRequestCleaner deletes old PodCertificateRequests.
type PodRequestCleaner struct {
	requests client.Typed[*certificatesv1.PodCertificateRequest]
	queue    *queue.Queue[queue.Key]
}

// NewPodRequestCleaner returns the controller that deletes them. It sleeps
// until the next one is old enough.
func NewPodRequestCleaner(api client.Interface, log *slog.Logger) *PodRequestCleaner {
	c := &PodRequestCleaner{requests: client.For[*certificatesv1.PodCertificateRequest](api)}
	c.queue = queue.New("podcertificaterequestcleaner", log, c.reconcile)
	c.requests.AddHandler(client.Handler[*certificatesv1.PodCertificateRequest]{Add: func(r *certificatesv1.PodCertificateRequest) {
		c.queue.Add(queue.Key{Namespace: r.Namespace, Name: r.Name})
	}})
	return c
}

// Run deletes until ctx ends.
func (c *PodRequestCleaner) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.requests.Informer()) {
		c.queue.Run(ctx, 1)
	}
	return nil
}

func (c *PodRequestCleaner) reconcile(ctx context.Context, key queue.Key) error {
	r, err := c.requests.Cached(key.Namespace, key.Name)
	if err == nil {
		if left := time.Until(r.CreationTimestamp.Add(podRequestLife)); left > 0 {
			c.queue.AddAfter(key, left)
			return nil
		}
		err = c.requests.Delete(ctx, key.Namespace, key.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &r.UID}})
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
