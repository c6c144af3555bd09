// SPDX-License-Identifier: Apache-2.0

// Package certificates is the group certificates.k8s.io as data: certificate signing requests, trust bundles and pod certificates.
// Package catalog lists its kinds; it never reads the state of a cluster.
package certificates

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		certificateSigningRequest(),
		clusterTrustBundle(),
		podCertificateRequest(),
	}
}
