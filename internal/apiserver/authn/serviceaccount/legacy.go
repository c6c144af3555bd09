// SPDX-License-Identifier: Apache-2.0

package serviceaccount

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/warning"
)

const (
	// lastUsed is the label with the day a token of a Secret was last used.
	lastUsed = "kubernetes.io/legacy-token-last-used"
	// invalidSince is the label that turns such a token off.
	invalidSince = "kubernetes.io/legacy-token-invalid-since"
	// day is the form of both.
	day = time.DateOnly
)

// legacyClaims are those of tokens kept in Secrets.
type legacyClaims struct {
	Namespace      string `json:"kubernetes.io/serviceaccount/namespace"`
	SecretName     string `json:"kubernetes.io/serviceaccount/secret.name"`
	ServiceAccount string `json:"kubernetes.io/serviceaccount/service-account.name"`
	UID            string `json:"kubernetes.io/serviceaccount/service-account.uid"`
}

// legacyIssuer signs the tokens kept in Secrets.
const legacyIssuer = "kubernetes/serviceaccount"

var errInvalidated = errors.New("service account token has been invalidated")

// judgeLegacy checks a token that is kept in a Secret: it is good as long as
// the Secret holds it.
func (v *Validator) judgeLegacy(ctx context.Context, token string, public *jwt.Claims, c *legacyClaims) (*serviceaccount.ServiceAccountInfo, error) {
	switch {
	case public.Subject == "":
		return nil, errors.New("sub claim is missing")
	case c.Namespace == "":
		return nil, errors.New("namespace claim is missing")
	case c.SecretName == "":
		return nil, errors.New("secretName claim is missing")
	case c.ServiceAccount == "":
		return nil, errors.New("serviceAccountName claim is missing")
	case c.UID == "":
		return nil, errors.New("serviceAccountUID claim is missing")
	case public.Subject != serviceaccount.MakeUsername(c.Namespace, c.ServiceAccount):
		return nil, errors.New("sub claim is invalid")
	}
	object, err := v.objects(ctx, "secrets", c.Namespace, c.SecretName)
	if err != nil {
		return nil, errInvalidated
	}
	secret, ok := object.(*corev1.Secret)
	if !ok || secret.DeletionTimestamp != nil {
		return nil, errInvalidated
	}
	if subtle.ConstantTimeCompare(secret.Data[corev1.ServiceAccountTokenKey], []byte(token)) != 1 {
		return nil, errors.New("service account token does not match server's copy")
	}
	account, err := v.objects(ctx, "serviceaccounts", c.Namespace, c.ServiceAccount)
	if err != nil {
		return nil, err
	}
	if account.GetDeletionTimestamp() != nil {
		return nil, fmt.Errorf("service account %s/%s has been deleted", c.Namespace, c.ServiceAccount)
	}
	if uid := string(account.GetUID()); uid != c.UID {
		return nil, fmt.Errorf("service account UID (%s) does not match claim (%s)", uid, c.UID)
	}
	auto := slices.ContainsFunc(account.(*corev1.ServiceAccount).Secrets, func(r corev1.ObjectReference) bool { return r.Name == secret.Name })
	v.Metrics.legacy(auto, secret.Labels[invalidSince] != "")
	if secret.Labels[invalidSince] != "" {
		return nil, fmt.Errorf("the token in secret %s/%s for service account %s/%s has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '%s' label from the secret to temporarily allow use of this token",
			c.Namespace, c.SecretName, c.Namespace, c.ServiceAccount, invalidSince)
	}
	v.used(ctx, secret, auto)
	return &serviceaccount.ServiceAccountInfo{Namespace: c.Namespace, Name: c.ServiceAccount, UID: c.UID}, nil
}

// used notes the day of a Secret's last use, and warns of tokens that nobody
// asked for.
func (v *Validator) used(ctx context.Context, secret *corev1.Secret, auto bool) {
	if auto {
		warning.AddWarning(ctx, "", "Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens.")
	}
	// A day's slack spares writes where servers' clocks differ about midnight.
	now := time.Now().UTC()
	today, yesterday := now.Format(day), now.AddDate(0, 0, -1).Format(day)
	if last := secret.Labels[lastUsed]; v.Used != nil && last != today && last != yesterday {
		v.Used(secret.Namespace, secret.Name, lastUsed, today)
	}
}
