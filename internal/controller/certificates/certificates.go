// SPDX-License-Identifier: Apache-2.0

// Package certificates has three controllers of CertificateSigningRequests: one
// approves what node agents ask for themselves, one signs what is approved for
// the cluster's own signers, one deletes what is done or given up. The
// controller manager runs them. Other signers' requests are never signed.
package certificates

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kaji/internal/client"
	"kaji/internal/controller/queue"
)

const workers = 2

// Controller calls one of the three for every request.
type Controller struct {
	requests client.Typed[*certificatesv1.CertificateSigningRequest]
	queue    *queue.Queue[string]
	handle   func(context.Context, *certificatesv1.CertificateSigningRequest) error
}

func newController(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{requests: client.For[*certificatesv1.CertificateSigningRequest](api)}
	c.queue = queue.New("certificate", log, c.reconcile)
	add := func(r *certificatesv1.CertificateSigningRequest) { c.queue.Add(r.Name) }
	c.requests.AddHandler(client.Handler[*certificatesv1.CertificateSigningRequest]{Add: add,
		Update: func(_, r *certificatesv1.CertificateSigningRequest) { add(r) }})
	return c
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.requests.Informer()) {
		c.queue.Run(ctx, workers)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, name string) error {
	r, err := c.requests.Cached("", name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.handle(ctx, r); !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}

// has says whether a request has a condition.
func has(r *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == kind })
}

// approved says whether a request was approved and not denied.
func approved(r *certificatesv1.CertificateSigningRequest) bool {
	return has(r, certificatesv1.CertificateApproved) && !has(r, certificatesv1.CertificateDenied)
}

func parse(data []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

// judge says why a request is not one its signer signs, nil if it is.
func judge(r *certificatesv1.CertificateSigningRequest, x *x509.CertificateRequest) error {
	switch r.Spec.SignerName {
	case certificatesv1.KubeletServingSignerName:
		return judgeServing(x, r.Spec.Usages)
	case certificatesv1.KubeAPIServerClientKubeletSignerName:
		return judgeNode(x, r.Spec.Usages)
	case certificatesv1.KubeAPIServerClientSignerName:
		for _, u := range r.Spec.Usages {
			if u != certificatesv1.UsageDigitalSignature && u != certificatesv1.UsageKeyEncipherment && u != certificatesv1.UsageClientAuth {
				return fmt.Errorf("invalid usage for client certificate: %s", u)
			}
		}
		if !slices.Contains(r.Spec.Usages, certificatesv1.UsageClientAuth) {
			return fmt.Errorf("missing required usage for client certificate: %s", certificatesv1.UsageClientAuth)
		}
	}
	return nil
}

// judgeNode judges the request for a node agent's client certificate.
func judgeNode(x *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	switch {
	case !slices.Equal(x.Subject.Organization, []string{"system:nodes"}):
		return errors.New("subject organization is not system:nodes")
	case len(x.DNSNames) > 0:
		return errors.New("DNS subjectAltNames are not allowed")
	case len(x.EmailAddresses) > 0:
		return errors.New("Email subjectAltNames are not allowed") //nolint:staticcheck // users read it
	case len(x.IPAddresses) > 0:
		return errors.New("IP subjectAltNames are not allowed")
	case len(x.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	case !strings.HasPrefix(x.Subject.CommonName, "system:node:"):
		return errors.New("subject common name does not begin with system:node:")
	}
	return judgeUsages(usages, certificatesv1.UsageClientAuth)
}

// judgeServing judges the request for a node agent's serving certificate.
func judgeServing(x *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	switch {
	case !slices.Equal(x.Subject.Organization, []string{"system:nodes"}):
		return errors.New("subject organization is not system:nodes")
	case len(x.DNSNames) == 0 && len(x.IPAddresses) == 0:
		return errors.New("DNS or IP subjectAltName is required")
	case len(x.EmailAddresses) > 0:
		return errors.New("Email subjectAltNames are not allowed") //nolint:staticcheck // users read it
	case len(x.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	}
	if err := judgeUsages(usages, certificatesv1.UsageServerAuth); err != nil {
		return err
	}
	if !strings.HasPrefix(x.Subject.CommonName, "system:node:") {
		return errors.New("subject common name does not begin with system:node:")
	}
	return nil
}

// judgeUsages wants signatures, the extended usage, and key encipherment, which
// keys other than RSA do without.
func judgeUsages(usages []certificatesv1.KeyUsage, extended certificatesv1.KeyUsage) error {
	want := []certificatesv1.KeyUsage{extended, certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment}
	slices.Sort(want)
	have := slices.Clone(usages)
	slices.Sort(have)
	have = slices.Compact(have)
	if slices.Equal(have, want) || slices.Equal(have, slices.DeleteFunc(slices.Clone(want), func(u certificatesv1.KeyUsage) bool { return u == certificatesv1.UsageKeyEncipherment })) {
		return nil
	}
	return fmt.Errorf("usages did not match %v", want)
}

func condition(kind certificatesv1.RequestConditionType, reason, message string) certificatesv1.CertificateSigningRequestCondition {
	return certificatesv1.CertificateSigningRequestCondition{Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message}
}
