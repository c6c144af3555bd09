// SPDX-License-Identifier: Apache-2.0

// Package certificate is the admission plug-ins about certificates and what
// vouches for them: CertificateApproval and CertificateSigning ask whether the
// user may approve or sign for a signer's name, ClusterTrustBundleAttest whether
// he may publish for it, and CertificateSubjectRestriction refuses client
// certificates that would make an administrator.
//
// The API server's admission chain calls them. Rights are those of the resource
// "signers" of the group certificates.k8s.io, by the signer's name or by its
// domain followed by "/*".
package certificate

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/apiserver/admission"
)

// The names that the plug-ins are enabled by.
const (
	ApprovalName = "CertificateApproval"
	SigningName  = "CertificateSigning"
	AttestName   = "ClusterTrustBundleAttest"
	SubjectName  = "CertificateSubjectRestriction"
)

const resource = "certificatesigningrequests"

// may says whether a user has a verb on a signer.
func may(ctx context.Context, z authorizer.Authorizer, who user.Info, verb, signer string) bool {
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		decision, _, err := z.Authorize(ctx, authorizer.AttributesRecord{
			User: who, Verb: verb, APIGroup: certificatesv1.GroupName, APIVersion: "*",
			Resource: "signers", Name: name, ResourceRequest: true,
		})
		if err == nil && decision == authorizer.DecisionAllow {
			return true
		}
	}
	return false
}

// Approval is the admission plug-in CertificateApproval.
type Approval struct{ authorizer authorizer.Authorizer }

// NewApproval returns the plug-in; z says who may approve.
func NewApproval(z authorizer.Authorizer) *Approval { return &Approval{z} }

// Name implements admission.Plugin.
func (p *Approval) Name() string { return ApprovalName }

// Handles implements admission.Plugin.
func (p *Approval) Handles(op admission.Operation) bool { return op == admission.Update }

// Validate implements admission.Validator.
func (p *Approval) Validate(ctx context.Context, a *admission.Attributes) error {
	if !a.Is(certificatesv1.GroupName, resource, "approval") {
		return nil
	}
	// The old object's signer counts: the new one's may be what the user likes.
	old, ok := a.Old.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return a.Forbidden(fmt.Errorf("expected type CertificateSigningRequest, got: %T", a.Old))
	}
	if !may(ctx, p.authorizer, a.User, "approve", old.Spec.SignerName) {
		return a.Forbidden(fmt.Errorf("user not permitted to approve requests with signerName %q", old.Spec.SignerName))
	}
	return nil
}

// Signing is the admission plug-in CertificateSigning.
type Signing struct{ authorizer authorizer.Authorizer }

// NewSigning returns the plug-in; z says who may sign.
func NewSigning(z authorizer.Authorizer) *Signing { return &Signing{z} }

// Name implements admission.Plugin.
func (p *Signing) Name() string { return SigningName }

// Handles implements admission.Plugin.
func (p *Signing) Handles(op admission.Operation) bool { return op == admission.Update }

// Validate implements admission.Validator.
func (p *Signing) Validate(ctx context.Context, a *admission.Attributes) error {
	if !a.Is(certificatesv1.GroupName, resource, "status") {
		return nil
	}
	old, ok := a.Old.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return a.Forbidden(fmt.Errorf("expected type CertificateSigningRequest, got: %T", a.Old))
	}
	now, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return a.Forbidden(fmt.Errorf("expected type CertificateSigningRequest, got: %T", a.Object))
	}
	if bytes.Equal(old.Status.Certificate, now.Status.Certificate) && equality.Semantic.DeepEqual(old.Status.Conditions, now.Status.Conditions) {
		return nil
	}
	if !may(ctx, p.authorizer, a.User, "sign", old.Spec.SignerName) {
		return a.Forbidden(fmt.Errorf("user not permitted to sign requests with signerName %q", old.Spec.SignerName))
	}
	return nil
}

// Attest is the admission plug-in ClusterTrustBundleAttest.
type Attest struct{ authorizer authorizer.Authorizer }

// NewAttest returns the plug-in; z says who may publish trust.
func NewAttest(z authorizer.Authorizer) *Attest { return &Attest{z} }

// Name implements admission.Plugin.
func (p *Attest) Name() string { return AttestName }

// Handles implements admission.Plugin.
func (p *Attest) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Validate implements admission.Validator.
func (p *Attest) Validate(ctx context.Context, a *admission.Attributes) error {
	if a.Resource.Group != certificatesv1.GroupName || a.Resource.Resource != "clustertrustbundles" {
		return nil
	}
	bundle, ok := a.Object.(*certificatesv1.ClusterTrustBundle)
	if !ok {
		return a.Forbidden(fmt.Errorf("expected type ClusterTrustBundle, got: %T", a.Old))
	}
	if bundle.Spec.SignerName == "" {
		return nil
	}
	if old, ok := a.Old.(*certificatesv1.ClusterTrustBundle); ok && a.Operation == admission.Update && collected(bundle, old) {
		return nil
	}
	if !may(ctx, p.authorizer, a.User, "attest", bundle.Spec.SignerName) {
		return a.Forbidden(fmt.Errorf("user not permitted to attest for signerName %q", bundle.Spec.SignerName))
	}
	return nil
}

// collected says whether nothing changed but what garbage collection changes.
func collected(now, old *certificatesv1.ClusterTrustBundle) bool {
	now = now.DeepCopy()
	now.OwnerReferences, now.Finalizers = old.OwnerReferences, old.Finalizers
	now.ManagedFields, now.ResourceVersion = old.ManagedFields, old.ResourceVersion
	return equality.Semantic.DeepEqual(now, old)
}

// Subject is the admission plug-in CertificateSubjectRestriction.
type Subject struct{}

// Name implements admission.Plugin.
func (Subject) Name() string { return SubjectName }

// Handles implements admission.Plugin.
func (Subject) Handles(op admission.Operation) bool { return op == admission.Create }

// Validate implements admission.Validator.
func (Subject) Validate(_ context.Context, a *admission.Attributes) error {
	if !a.Is(certificatesv1.GroupName, resource, "") {
		return nil
	}
	request, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return a.Forbidden(fmt.Errorf("expected type CertificateSigningRequest, got: %T", a.Object))
	}
	if request.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	asked, err := parse(request.Spec.Request)
	if err != nil {
		return a.Forbidden(fmt.Errorf("failed to parse CSR: %w", err))
	}
	if slices.Contains(asked.Subject.Organization, user.SystemPrivilegedGroup) {
		return a.Forbidden(fmt.Errorf("use of %s signer with %s group is not allowed", certificatesv1.KubeAPIServerClientSignerName, user.SystemPrivilegedGroup))
	}
	return nil
}

func parse(text []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

var (
	_ admission.Validator = (*Approval)(nil)
	_ admission.Validator = (*Signing)(nil)
	_ admission.Validator = (*Attest)(nil)
	_ admission.Validator = Subject{}
)
