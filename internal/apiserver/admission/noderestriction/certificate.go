// SPDX-License-Identifier: Apache-2.0

package noderestriction

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/apiserver/admission"
)

// judgeCertificate lets a node ask for certificates of nodes in its own name
// only.
func judgeCertificate(a *admission.Attributes, node string) error {
	if a.Operation != admission.Create {
		return nil
	}
	request, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return unexpected(a.Object)
	}
	if s := request.Spec.SignerName; s != certificatesv1.KubeletServingSignerName && s != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil
	}
	name, err := commonName(request.Spec.Request)
	if err != nil {
		return fmt.Errorf("unable to parse csr: %w", err)
	}
	if name != userPrefix+node {
		return fmt.Errorf("can only create a node CSR with CN=%s%s", userPrefix, node)
	}
	return nil
}

func commonName(text []byte) (string, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return "", errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	asked, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return "", err
	}
	return asked.Subject.CommonName, nil
}

// judgePodCertificate lets a node ask for certificates of its own pods.
func (p *Plugin) judgePodCertificate(ctx context.Context, a *admission.Attributes, node string) error {
	if a.Operation != admission.Create {
		return fmt.Errorf("unexpected operation %v", a.Operation)
	}
	if a.Subresource != "" {
		return fmt.Errorf("unexpected subresource %v", a.Subresource)
	}
	request, ok := a.Object.(*certificatesv1.PodCertificateRequest)
	if !ok {
		return unexpected(a.Object)
	}
	spec := &request.Spec
	if string(spec.NodeName) != node {
		return fmt.Errorf("PodCertificateRequest.Spec.NodeName=%q, which is not the requesting node %q", spec.NodeName, node)
	}
	podName := a.Namespace + "/" + spec.PodName
	self, found, err := admission.Find[*corev1.Node](ctx, p.read, corev1.SchemeGroupVersion.WithKind("Node"), "", node)
	switch {
	case err != nil:
		return fmt.Errorf("while retrieving node %q named in the PodCertificateRequest: %w", node, err)
	case !found:
		return unsettled{fmt.Errorf("while retrieving node %q named in the PodCertificateRequest: node %q not found", node, node)}
	case self.UID != spec.NodeUID:
		return unsettled{fmt.Errorf("PodCertificateRequest for pod %q names node UID %q, inconsistent with the running node (%q)", podName, spec.NodeUID, self.UID)}
	}
	pod, err := p.certified(ctx, a, spec, podName)
	if err != nil {
		return err
	}
	if err := p.judgeAccount(ctx, a, spec, podName); err != nil {
		return err
	}
	return p.judgeSigner(ctx, a, spec, pod)
}

// certified returns the pod that a certificate is for.
func (p *Plugin) certified(ctx context.Context, a *admission.Attributes, spec *certificatesv1.PodCertificateRequestSpec, name string) (*corev1.Pod, error) {
	pod, found, err := admission.Find[*corev1.Pod](ctx, p.read, corev1.SchemeGroupVersion.WithKind("Pod"), a.Namespace, spec.PodName)
	switch {
	case err != nil:
		return nil, fmt.Errorf("while retrieving pod %q named in the PodCertificateRequest: %w", name, err)
	case !found:
		return nil, unsettled{fmt.Errorf("while retrieving pod %q named in the PodCertificateRequest: pod %q not found", name, spec.PodName)}
	case pod.UID != spec.PodUID:
		return nil, unsettled{fmt.Errorf("PodCertificateRequest for pod %q contains pod UID (%q) which differs from running pod %q", name, spec.PodUID, string(pod.UID))}
	case pod.Spec.NodeName != string(spec.NodeName):
		return nil, fmt.Errorf("pod %q is not running on node %q named in the PodCertificateRequest", name, spec.NodeName)
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return nil, fmt.Errorf("pod %q is a mirror pod", name)
	}
	if pod.Spec.ServiceAccountName != spec.ServiceAccountName {
		return nil, fmt.Errorf("PodCertificateRequest for pod %q contains serviceAccountName (%q) that differs from running pod (%q)", name, spec.ServiceAccountName, pod.Spec.ServiceAccountName)
	}
	return pod, nil
}

func (p *Plugin) judgeAccount(ctx context.Context, a *admission.Attributes, spec *certificatesv1.PodCertificateRequestSpec, podName string) error {
	name := a.Namespace + "/" + spec.ServiceAccountName
	account, found, err := admission.Find[*corev1.ServiceAccount](ctx, p.read, corev1.SchemeGroupVersion.WithKind("ServiceAccount"), a.Namespace, spec.ServiceAccountName)
	switch {
	case err != nil:
		return fmt.Errorf("while retrieving service account %q named in the PodCertificateRequest: %w", name, err)
	case !found:
		return unsettled{fmt.Errorf("while retrieving service account %q named in the PodCertificateRequest: serviceaccount %q not found", name, spec.ServiceAccountName)}
	case account.UID != spec.ServiceAccountUID:
		return unsettled{fmt.Errorf("PodCertificateRequest for pod %q names service account UID %q, which differs from the running service account (%q)", podName, spec.ServiceAccountUID, account.UID)}
	}
	return nil
}

// judgeSigner asks for a volume of the pod that names the signer, or the right to
// do without.
func (p *Plugin) judgeSigner(ctx context.Context, a *admission.Attributes, spec *certificatesv1.PodCertificateRequestSpec, pod *corev1.Pod) error {
	for i := range pod.Spec.Volumes {
		if from := pod.Spec.Volumes[i].Projected; from != nil && slices.ContainsFunc(from.Sources, func(s corev1.VolumeProjection) bool {
			return s.PodCertificate != nil && s.PodCertificate.SignerName == spec.SignerName
		}) {
			return nil
		}
	}
	decision, _, err := p.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: a.User, Verb: "request-serviceaccounts-podcertificate-signer", ResourceRequest: true,
		Namespace: a.Namespace, APIGroup: a.Resource.Group, APIVersion: a.Resource.Version,
		// Resources of roles cannot have slashes.
		Resource: strings.ReplaceAll(spec.SignerName, "/", ":"), Name: spec.ServiceAccountName,
	})
	switch {
	case decision == authorizer.DecisionAllow:
		return nil
	case err != nil:
		return fmt.Errorf("error authorizing %s to request podcertificaterequests for signer %q: %w", a.User.GetName(), spec.SignerName, err)
	}
	return fmt.Errorf("pod %q does not mount a podCertificate projected volume for signer %q", a.Namespace+"/"+spec.PodName, spec.SignerName)
}
