// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"context"

	certificatesv1 "k8s.io/api/certificates/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

func podCertificateRequest() *api.Kind {
	spec := certificatesv1.PodCertificateRequestSpec{}.SwaggerDoc()
	return &api.Kind{
		Group: certificatesv1.GroupName, Name: "PodCertificateRequest", Resource: "podcertificaterequests", Singular: "podcertificaterequest",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: certificatesv1.SchemeGroupVersion,
			New:          api.New[certificatesv1.PodCertificateRequest], NewList: api.NewList[certificatesv1.PodCertificateRequestList],
			Default: api.Default(func(r *certificatesv1.PodCertificateRequest) {
				if r.Spec.MaxExpirationSeconds == nil {
					day := int32(86400)
					r.Spec.MaxExpirationSeconds = &day
				}
			}),
		}},
		Storage: certificatesv1.SchemeGroupVersion,
		Prefix:  "/registry/podcertificaterequests",
		New:     api.New[certificatesv1.PodCertificateRequest], NewList: api.NewList[certificatesv1.PodCertificateRequestList],
		Rules: api.For[*certificatesv1.PodCertificateRequest]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, r *certificatesv1.PodCertificateRequest) {
				r.Status = certificatesv1.PodCertificateRequestStatus{}
			},
			PrepareForUpdate: func(_ context.Context, r, old *certificatesv1.PodCertificateRequest) {
				r.Status = old.Status
			},
			Validate: validatePodRequest,
			ValidateUpdate: func(r, old *certificatesv1.PodCertificateRequest) field.ErrorList {
				if apiequality.Semantic.DeepEqual(r.Spec, old.Spec) {
					return nil
				}
				return field.ErrorList{field.Invalid(field.NewPath("spec"), shownRequest(&r.Spec), apivalidation.FieldImmutableErrorMsg)}
			},
			Fields: func(r *certificatesv1.PodCertificateRequest) fields.Set {
				return fields.Set{
					"spec.signerName": r.Spec.SignerName,
					"spec.podName":    r.Spec.PodName,
					"spec.nodeName":   string(r.Spec.NodeName),
				}
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("PodName", spec["podName"]),
				table.String("ServiceAccountName", spec["serviceAccountName"]),
				table.String("NodeName", spec["nodeName"]),
				table.String("SignerName", spec["signerName"]),
				table.String("State", "Is the request Pending, Issued, Denied, or Failed?"),
				table.String("UnverifiedUserAnnotations", spec["unverifiedUserAnnotations"]),
			},
			Cells: func(r *certificatesv1.PodCertificateRequest) []any {
				state := "Pending"
				for _, c := range r.Status.Conditions {
					switch c.Type {
					case certificatesv1.PodCertificateRequestConditionTypeIssued, certificatesv1.PodCertificateRequestConditionTypeDenied,
						certificatesv1.PodCertificateRequestConditionTypeFailed:
						state = c.Type
					}
				}
				return []any{r.Name, r.Spec.PodName, r.Spec.ServiceAccountName, string(r.Spec.NodeName), r.Spec.SignerName, state,
					labels.FormatLabels(r.Spec.UnverifiedUserAnnotations)}
			},
		}.Rules(),
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, r, old *certificatesv1.PodCertificateRequest) {
				r.Spec = old.Spec
				metav1.ResetObjectMetaForStatus(&r.ObjectMeta, &old.ObjectMeta)
			}),
			ValidateUpdate: api.Update(validatePodRequestStatus),
			ResetFields:    []string{"metadata", "spec"},
		},
	}
}
