// SPDX-License-Identifier: Apache-2.0

package serviceaccount

import (
	"context"
	"crypto"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/authenticator"
)

const (
	// extendable is the lifetime in seconds that the node agent asks for on
	// behalf of pods; such tokens live a year and warn when they are used
	// later than asked for (KEP-1205).
	extendable = 3607
	extended   = 365 * 24 * time.Hour
	minimum    = 10 * time.Minute
	maximum    = int64(1) << 32
	standard   = time.Hour
)

// Issuer makes tokens for the subresource serviceaccounts/token.
type Issuer struct {
	// URL is the issuer named in tokens.
	URL string
	// Audiences are the API server's, given to requests that name none.
	Audiences []string
	// MaxExpiration caps the lifetime; zero does not.
	MaxExpiration time.Duration
	// Extend lets pods' tokens live longer than asked for, with a warning.
	Extend  bool
	Objects Objects

	signer func() (jose.Signer, error)
}

// NewIssuer returns an issuer that signs with a key. The key is asked for when
// the first token is, since it may still be made.
func NewIssuer(c Issuer, key func() (crypto.Signer, error)) *Issuer {
	c.signer = sync.OnceValues(func() (jose.Signer, error) {
		private, err := key()
		if err != nil {
			return nil, fmt.Errorf("service account signing key: %w", err)
		}
		public, err := describe(private.Public())
		if err != nil {
			return nil, err
		}
		return jose.NewSigner(jose.SigningKey{Algorithm: public.algorithm, Key: jose.JSONWebKey{Key: private, KeyID: public.id}}, nil)
	})
	return &c
}

// Issue answers a TokenRequest for a ServiceAccount. Errors carry an API status.
func (i *Issuer) Issue(ctx context.Context, account *corev1.ServiceAccount, in *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	if in.UID != "" && in.UID != account.UID {
		return nil, apierrors.NewConflict(schema.GroupResource{Group: authenticationv1.GroupName, Resource: "TokenRequest"}, account.Name,
			fmt.Errorf("the UID in the token request (%s) does not match the UID of the service account (%s)", in.UID, account.UID))
	}
	out := in.DeepCopy()
	spec := &out.Spec
	if len(spec.Audiences) == 0 {
		spec.Audiences = i.Audiences
	}
	seconds := int64(standard / time.Second)
	if spec.ExpirationSeconds != nil {
		seconds = *spec.ExpirationSeconds
	}
	if errs := validate(seconds); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: authenticationv1.GroupName, Kind: "TokenRequest"}, in.Name, errs)
	}
	if i.MaxExpiration > 0 && time.Duration(seconds)*time.Second > i.MaxExpiration {
		seconds = int64(i.MaxExpiration / time.Second)
	}
	spec.ExpirationSeconds = &seconds

	k := private{Namespace: account.Namespace, ServiceAccount: ref{account.Name, string(account.UID)}}
	if err := i.bind(ctx, account, spec.BoundObjectRef, &k); err != nil {
		return nil, err
	}
	now := time.Now()
	expires := now.Add(time.Duration(seconds) * time.Second)
	claims := jwt.Claims{
		ID: uuid.NewString(), Issuer: i.URL, Subject: Username(account.Namespace, account.Name),
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(expires),
	}
	if i.Extend && seconds == extendable && k.Pod != nil && i.forServer(spec.Audiences) {
		k.WarnAfter = jwt.NewNumericDate(expires)
		claims.Expiry = jwt.NewNumericDate(now.Add(extended))
	}
	signer, err := i.signer()
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Claims(audiences{spec.Audiences}).Claims(privateClaims{k}).Serialize()
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("failed to generate token: %w", err))
	}
	out.Namespace, out.Name = account.Namespace, account.Name
	out.UID, out.CreationTimestamp = account.UID, account.CreationTimestamp
	out.Status = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.NewTime(expires)}
	return out, nil
}

// audiences are a list even when there is one, as upstream writes them.
type audiences struct {
	Audience []string `json:"aud"`
}

func validate(seconds int64) field.ErrorList {
	path := field.NewPath("spec", "expirationSeconds")
	switch {
	case seconds < int64(minimum/time.Second):
		return field.ErrorList{field.Invalid(path, seconds, "may not specify a duration less than 10 minutes")}
	case seconds > maximum:
		return field.ErrorList{field.Invalid(path, seconds, "may not specify a duration larger than 2^32 seconds")}
	}
	return nil
}

// forServer says whether a token is for the API server itself and nobody else.
func (i *Issuer) forServer(audiences authenticator.Audiences) bool {
	return len(audiences.Intersect(i.Audiences)) == len(audiences)
}

// bind fills the claims about the object a token shall live and die with.
func (i *Issuer) bind(ctx context.Context, account *corev1.ServiceAccount, to *authenticationv1.BoundObjectReference, k *private) error {
	if to == nil {
		return nil
	}
	gvk := schema.FromAPIVersionAndKind(to.APIVersion, to.Kind)
	resource, namespace := "", account.Namespace
	switch {
	case gvk.Group == "" && gvk.Kind == "Pod":
		resource = "pods"
	case gvk.Group == "" && gvk.Kind == "Secret":
		resource = "secrets"
	case gvk.Group == "" && gvk.Kind == "Node":
		resource, namespace = "nodes", ""
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", gvk.String()))
	}
	if to.Name == "" {
		return apierrors.NewBadRequest("Name parameter required.")
	}
	object, err := i.Objects(ctx, resource, namespace, to.Name)
	if err != nil {
		return err
	}
	if to.UID != "" && to.UID != object.GetUID() {
		return apierrors.NewConflict(schema.GroupResource{Resource: gvk.Kind}, to.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", to.UID))
	}
	r := &ref{object.GetName(), string(object.GetUID())}
	switch o := object.(type) {
	case *corev1.Pod:
		if o.Spec.ServiceAccountName != account.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", account.Name))
		}
		k.Pod = r
		if o.Spec.NodeName != "" {
			k.Node = &ref{Name: o.Spec.NodeName}
			// The node may be gone or not registered yet; its name is known.
			if node, err := i.Objects(ctx, "nodes", "", o.Spec.NodeName); err == nil {
				k.Node.UID = string(node.GetUID())
			}
		}
	case *corev1.Secret:
		k.Secret = r
	default:
		k.Node = r
	}
	return nil
}
