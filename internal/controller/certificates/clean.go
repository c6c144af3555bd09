// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
)

const (
	// doneLife is how long requests stay after the last word on them,
	// pendingLife how long they wait for one.
	doneLife    = time.Hour
	pendingLife = 24 * time.Hour
)

// NewCleaner returns the controller that deletes old requests. It sleeps until
// the next one is old enough.
func NewCleaner(api client.Interface, log *slog.Logger) *Controller {
	c := newController(api, log)
	c.handle = func(ctx context.Context, r *certificatesv1.CertificateSigningRequest) error {
		if left := time.Until(due(r)); left > 0 {
			c.queue.AddAfter(r.Name, left)
			return nil
		}
		return c.requests.Delete(ctx, "", r.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &r.UID}})
	}
	return c
}

// due is when a request is deleted. One that is approved and that nobody signs
// waits as long as one that nobody approves.
func due(r *certificatesv1.CertificateSigningRequest) time.Time {
	when := r.CreationTimestamp.Add(pendingLife)
	for i, c := range r.Status.Conditions {
		life := doneLife
		if c.Type == certificatesv1.CertificateApproved && len(r.Status.Certificate) == 0 {
			life = pendingLife
		}
		if at := c.LastUpdateTime.Add(life); i == 0 || at.Before(when) {
			when = at
		}
	}
	if block, _ := pem.Decode(r.Status.Certificate); block != nil {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && cert.NotAfter.Before(when) {
			when = cert.NotAfter
		}
	}
	return when
}
