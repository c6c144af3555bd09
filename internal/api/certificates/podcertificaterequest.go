// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	certificatesv1 "k8s.io/api/certificates/v1"

	"kaji/internal/api"
)

func podCertificateRequest() *api.Kind {
	return &api.Kind{
		Group: certificatesv1.GroupName, Name: "PodCertificateRequest", Resource: "podcertificaterequests", Singular: "podcertificaterequest",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: certificatesv1.SchemeGroupVersion,
			New:          api.New[certificatesv1.PodCertificateRequest], NewList: api.NewList[certificatesv1.PodCertificateRequestList],
		}},
		Storage: certificatesv1.SchemeGroupVersion,
		Prefix:  "/registry/podcertificaterequests",
		New:     api.New[certificatesv1.PodCertificateRequest], NewList: api.NewList[certificatesv1.PodCertificateRequestList],
		Status: &api.Subresource{Name: "status"},
	}
}
