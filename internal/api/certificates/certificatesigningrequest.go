// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"context"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

func certificateSigningRequest() *api.Kind {
	spec := certificatesv1.CertificateSigningRequestSpec{}.SwaggerDoc()
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
		Rules: api.For[*certificatesv1.CertificateSigningRequest]{
			ValidateName:     func(string, bool) []string { return nil },
			PrepareForCreate: prepareRequest,
			PrepareForUpdate: func(_ context.Context, r, old *certificatesv1.CertificateSigningRequest) {
				r.Spec, r.Status = old.Spec, old.Status
			},
			Validate: func(r *certificatesv1.CertificateSigningRequest) field.ErrorList {
				return validateRequest(r, nil)
			},
			ValidateUpdate: func(r, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
				return validateRequestUpdate(r, old, view{})
			},
			Fields: func(r *certificatesv1.CertificateSigningRequest) fields.Set {
				return fields.Set{"spec.signerName": r.Spec.SignerName}
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.Age(),
				table.String("SignerName", certificatesv1beta1.CertificateSigningRequestSpec{}.SwaggerDoc()["signerName"]),
				table.String("Requestor", certificatesv1beta1.CertificateSigningRequestSpec{}.SwaggerDoc()["request"]),
				table.String("RequestedDuration", spec["expirationSeconds"]),
				table.String("Condition", certificatesv1beta1.CertificateSigningRequestStatus{}.SwaggerDoc()["conditions"]),
			},
			Cells: requestCells,
		}.Rules(),
		ResetFields: []string{"spec", "status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, r, old *certificatesv1.CertificateSigningRequest) {
				r.Spec = old.Spec
				keepConditions(r, old, certificatesv1.CertificateApproved)
				keepConditions(r, old, certificatesv1.CertificateDenied)
				stampConditions(r, old)
			}),
			ValidateUpdate: api.Update(func(r, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
				return validateRequestUpdate(r, old, view{certificate: true})
			}),
			ResetFields: []string{"spec", "status.conditions"},
		},
		Subresources: []api.Subresource{{
			Name: "approval",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, r, old *certificatesv1.CertificateSigningRequest) {
				stampConditions(r, old)
				conditions := r.Status.Conditions
				r.Spec, r.Status = old.Spec, old.Status
				r.Status.Conditions = conditions
			}),
			ValidateUpdate: api.Update(func(r, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
				return validateRequestUpdate(r, old, view{approval: true})
			}),
			ResetFields: []string{"spec", "status.certificate"},
		}},
		AllowUnconditionalUpdate: true,
	}
}

// prepareRequest writes who asks into the request.
func prepareRequest(ctx context.Context, r *certificatesv1.CertificateSigningRequest) {
	r.Spec.Username, r.Spec.UID, r.Spec.Groups, r.Spec.Extra = "", "", nil, nil
	if user, ok := apirequest.UserFrom(ctx); ok {
		r.Spec.Username, r.Spec.UID, r.Spec.Groups = user.GetName(), user.GetUID(), user.GetGroups()
		for key, values := range user.GetExtra() {
			if r.Spec.Extra == nil {
				r.Spec.Extra = map[string]certificatesv1.ExtraValue{}
			}
			r.Spec.Extra[key] = values
		}
	}
	r.Status = certificatesv1.CertificateSigningRequestStatus{}
}

// keepConditions restores the conditions of type t: a status writer may not
// approve or deny.
func keepConditions(r, old *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) {
	before, now := conditionsOf(old, t), conditionsOf(r, t)
	if len(before) != len(now) {
		return // validation refuses it
	}
	n := 0
	for i := range r.Status.Conditions {
		if r.Status.Conditions[i].Type == t {
			r.Status.Conditions[i] = before[n]
			n++
		}
	}
}

func conditionsOf(r *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) []certificatesv1.CertificateSigningRequestCondition {
	var found []certificatesv1.CertificateSigningRequestCondition
	for _, c := range r.Status.Conditions {
		if c.Type == t {
			found = append(found, c)
		}
	}
	return found
}

// stampConditions fills the times that the writer left out.
func stampConditions(r, old *certificatesv1.CertificateSigningRequest) {
	now := metav1.Now()
	for i := range r.Status.Conditions {
		c := &r.Status.Conditions[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = now
		}
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		c.LastTransitionTime = now
		for _, was := range old.Status.Conditions {
			if was.Type == c.Type && was.Status == c.Status && !was.LastTransitionTime.IsZero() {
				c.LastTransitionTime = was.LastTransitionTime
				break
			}
		}
	}
}

func requestCells(r *certificatesv1.CertificateSigningRequest) []any {
	signer, lifetime := "<none>", "<none>"
	if r.Spec.SignerName != "" {
		signer = r.Spec.SignerName
	}
	if seconds := r.Spec.ExpirationSeconds; seconds != nil {
		lifetime = duration.HumanDuration(time.Duration(*seconds) * time.Second)
	}
	state := "Pending"
	switch {
	case len(conditionsOf(r, certificatesv1.CertificateDenied)) > 0:
		state = "Denied"
	case len(conditionsOf(r, certificatesv1.CertificateApproved)) > 0:
		state = "Approved"
	}
	if len(conditionsOf(r, certificatesv1.CertificateFailed)) > 0 {
		state += ",Failed"
	}
	if len(r.Status.Certificate) > 0 {
		state += ",Issued"
	}
	return []any{r.Name, table.Since(r.CreationTimestamp), signer, r.Spec.Username, lifetime, state}
}
