// SPDX-License-Identifier: Apache-2.0

package verb

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/apiserver/object"
	"kaji/internal/apiserver/request"
)

// TokenIssuer makes tokens of ServiceAccounts.
type TokenIssuer interface {
	// Issue checks the request, which belongs to the callee, and returns it
	// with its status. account is shared.
	Issue(ctx context.Context, account *corev1.ServiceAccount, in *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
}

// tokens are where ServiceAccounts get their tokens.
func (v *Verbs) tokens() Subresource {
	return Subresource{
		Resource: schema.GroupResource{Resource: "serviceaccounts"}, Name: "token",
		GVK:   authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"),
		New:   func() runtime.Object { return &authenticationv1.TokenRequest{} },
		Verbs: []string{"create"},
		Create: func(ctx context.Context, in *request.Info, obj runtime.Object, opts *metav1.CreateOptions) (runtime.Object, error) {
			entry, err := v.Objects.Get(ctx, in.Served, in.Namespace, in.Name, "")
			if err != nil {
				return nil, err
			}
			ask := obj.(*authenticationv1.TokenRequest)
			if err := matchAccount(in, ask); err != nil {
				return nil, err
			}
			if ask.Spec.ExpirationSeconds == nil {
				hour := int64(60 * 60)
				ask.Spec.ExpirationSeconds = &hour
			}
			if err := v.trackView(in, ask, opts.FieldManager); err != nil {
				return nil, err
			}
			if err := v.admitSpecial(ctx, in, ask, opts); err != nil {
				return nil, err
			}
			return v.Tokens.Issue(ctx, entry.Object.(*corev1.ServiceAccount), ask)
		},
	}
}

// matchAccount refuses a request that names another account than its path.
func matchAccount(in *request.Info, ask *authenticationv1.TokenRequest) error {
	if err := object.MatchNamespace(ask, in.Namespace); err != nil {
		return err
	}
	if ask.Name == "" || ask.Name == in.Name {
		return nil
	}
	path := field.NewPath("metadata", "name")
	return apierrors.NewInvalid(authenticationv1.SchemeGroupVersion.WithKind("TokenRequest").GroupKind(), in.Name,
		field.ErrorList{field.Invalid(path, ask.Name, "must match the service account name if specified")})
}
