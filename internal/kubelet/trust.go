// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
)

// trustBundle returns the certificates that a projection asks for (KEP-3257):
// those of one bundle, or of all bundles of a signer that labels select, each
// certificate once and in an order that tells nothing.
func (k *Kubelet) trustBundle(p *corev1.ClusterTrustBundleProjection) ([]byte, error) {
	bundles := client.For[*certificatesv1.ClusterTrustBundle](k.cfg.Client)
	optional := p.Optional != nil && *p.Optional
	ctx := context.Background()
	if p.Name != nil {
		b, err := bundles.Get(ctx, "", *p.Name)
		if apierrors.IsNotFound(err) && optional {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("while getting ClusterTrustBundle: %w", err)
		}
		return certificates([]string{b.Spec.TrustBundle}), nil
	}
	if p.SignerName == nil {
		return nil, fmt.Errorf("a trust bundle projection names neither a bundle nor a signer")
	}
	selector, err := metav1.LabelSelectorAsSelector(p.LabelSelector)
	if err != nil {
		return nil, fmt.Errorf("while parsing label selector: %w", err)
	}
	if p.LabelSelector == nil {
		// The text of what selects nothing is that of what selects everything.
		if optional {
			return nil, nil
		}
		return nil, fmt.Errorf("combination of signerName and labelSelector matched zero ClusterTrustBundles")
	}
	found, err := bundles.List(ctx, "", metav1.ListOptions{FieldSelector: "spec.signerName=" + *p.SignerName, LabelSelector: selector.String()})
	if err != nil {
		return nil, fmt.Errorf("while listing ClusterTrustBundles: %w", err)
	}
	if len(found) == 0 && !optional {
		return nil, fmt.Errorf("combination of signerName and labelSelector matched zero ClusterTrustBundles")
	}
	var texts []string
	for _, b := range found {
		texts = append(texts, b.Spec.TrustBundle)
	}
	return certificates(texts), nil
}

// certificates joins the certificates of several texts, each one once.
func certificates(texts []string) []byte {
	var blocks [][]byte
	for _, text := range texts {
		for rest := []byte(text); ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if block.Type == "CERTIFICATE" {
				blocks = append(blocks, block.Bytes)
			}
		}
	}
	slices.SortFunc(blocks, bytes.Compare)
	var out bytes.Buffer
	for _, b := range slices.CompactFunc(blocks, bytes.Equal) {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b}))
	}
	return out.Bytes()
}
