// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	certificatesv1 "k8s.io/api/certificates/v1"

	"kaji/internal/api"
)

func clusterTrustBundle() *api.Kind {
	return &api.Kind{
		Group: certificatesv1.GroupName, Name: "ClusterTrustBundle", Resource: "clustertrustbundles", Singular: "clustertrustbundle",
		Versions: []api.Version{{
			GroupVersion: certificatesv1.SchemeGroupVersion,
			New:          api.New[certificatesv1.ClusterTrustBundle], NewList: api.NewList[certificatesv1.ClusterTrustBundleList],
		}},
		Storage: certificatesv1.SchemeGroupVersion,
		Prefix:  "/registry/clustertrustbundles",
		New:     api.New[certificatesv1.ClusterTrustBundle], NewList: api.NewList[certificatesv1.ClusterTrustBundleList],
	}
}
