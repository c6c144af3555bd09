// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	certificatesv1 "k8s.io/api/certificates/v1"

	"kaji/internal/api"
)

func certificateSigningRequest() *api.Kind {
	return &api.Kind{
		Group: certificatesv1.GroupName, Name: "CertificateSigningRequest", Resource: "certificatesigningrequests", Singular: "certificatesigningrequest",
		ShortNames: []string{"csr"},
		Versions: []api.Version{{
			GroupVersion: certificatesv1.SchemeGroupVersion,
			New:          api.New[certificatesv1.CertificateSigningRequest], NewList: api.NewList[certificatesv1.CertificateSigningRequestList],
		}},
		Storage: certificatesv1.SchemeGroupVersion,
		Prefix:  "/registry/certificatesigningrequests",
		New:     api.New[certificatesv1.CertificateSigningRequest], NewList: api.NewList[certificatesv1.CertificateSigningRequestList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
