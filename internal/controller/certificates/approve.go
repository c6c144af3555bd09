// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"context"
	"fmt"
	"log/slog"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
)

// NewApprover returns the controller that approves node agents' client
// certificates, of those who may ask for them.
func NewApprover(api client.Interface, log *slog.Logger) *Controller {
	c := newController(api, log)
	c.handle = func(ctx context.Context, r *certificatesv1.CertificateSigningRequest) error {
		return approve(ctx, api, r)
	}
	return c
}

func approve(ctx context.Context, api client.Interface, r *certificatesv1.CertificateSigningRequest) error {
	if len(r.Status.Certificate) > 0 || has(r, certificatesv1.CertificateApproved) || has(r, certificatesv1.CertificateDenied) ||
		r.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil
	}
	x, err := parse(r.Spec.Request)
	if err != nil {
		return fmt.Errorf("unable to parse csr %q: %w", r.Name, err)
	}
	if judgeNode(x, r.Spec.Usages) != nil {
		return nil
	}
	// A node renews its own certificate, a bootstrap token's owner asks for a
	// new node's.
	kinds := []struct{ permission, message string }{{"nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."}}
	if r.Spec.Username == x.Subject.CommonName {
		kinds = append([]struct{ permission, message string }{{"selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."}}, kinds...)
	}
	for _, kind := range kinds {
		if may, err := allowed(ctx, api, r, kind.permission); err != nil {
			return err
		} else if !may {
			continue
		}
		next := r.DeepCopy()
		next.Status.Conditions = append(next.Status.Conditions, condition(certificatesv1.CertificateApproved, "AutoApproved", kind.message))
		at := client.For[*certificatesv1.CertificateSigningRequest](api).Resource("")
		at.Subresource = "approval"
		_, err := api.Update(ctx, at, r.Name, next, metav1.UpdateOptions{})
		return err
	}
	// Permissions may come later.
	return fmt.Errorf("recognized csr %q but subject access review was not approved", r.Name)
}

// allowed asks whether whoever made the request may have such a certificate.
func allowed(ctx context.Context, api client.Interface, r *certificatesv1.CertificateSigningRequest, permission string) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for name, values := range r.Spec.Extra {
		extra[name] = authorizationv1.ExtraValue(values)
	}
	review, err := client.For[*authorizationv1.SubjectAccessReview](api).Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: r.Spec.Username, UID: r.Spec.UID, Groups: r.Spec.Groups, Extra: extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{Group: certificatesv1.GroupName, Resource: "certificatesigningrequests", Verb: "create", Subresource: permission},
	}})
	return err == nil && review.Status.Allowed, err
}
