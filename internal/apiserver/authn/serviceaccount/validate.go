// SPDX-License-Identifier: Apache-2.0

package serviceaccount

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"

	"kaji/internal/apiserver/authn/verified"
)

// Objects reads the present state of an object of the core group; resource is
// "serviceaccounts", "pods", "secrets" or "nodes". The error is NotFound when
// it is absent. The object is shared and must not be modified.
type Objects func(ctx context.Context, resource, namespace, name string) (metav1.Object, error)

// leeway allows for clocks that differ. It also keeps a token of a deleted
// object good for so long, so that what its owner does on its way out succeeds.
const leeway = jwt.DefaultLeeway

// ref names an object a token is bound to.
type ref struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// private are the claims below "kubernetes.io".
type private struct {
	Namespace      string           `json:"namespace,omitempty"`
	Node           *ref             `json:"node,omitempty"`
	Pod            *ref             `json:"pod,omitempty"`
	Secret         *ref             `json:"secret,omitempty"`
	ServiceAccount ref              `json:"serviceaccount"`
	WarnAfter      *jwt.NumericDate `json:"warnafter,omitempty"`
}

type privateClaims struct {
	Kubernetes private `json:"kubernetes.io"`
}

// Validator judges tokens. It implements authenticator.Token.
type Validator struct {
	issuers   map[string]bool
	audiences authenticator.Audiences
	keys      func() ([]publicKey, error)
	objects   Objects
	// Used, when set, is told the label to put on a Secret whose token was
	// used, about once a day. It must not block.
	Used func(namespace, secret, label, day string)
	// Metrics counts sorts of tokens; nil counts none.
	Metrics *Metrics

	// verified are tokens whose signature is good; the keys do not change under
	// a Validator.
	verified verified.Memory[[sha256.Size]byte, *claims]
}

// NewValidator accepts tokens of the issuers, signed by one of keys, which are
// asked for at the first token since they may still be made. audiences
// are those of the API server, used when a request names none.
func NewValidator(issuers []string, keys func() ([]crypto.PublicKey, error), audiences []string, objects Objects) *Validator {
	v := &Validator{issuers: map[string]bool{legacyIssuer: true}, audiences: audiences, objects: objects}
	for _, issuer := range issuers {
		v.issuers[issuer] = true
	}
	v.keys = sync.OnceValues(func() ([]publicKey, error) {
		public, err := keys()
		if err != nil {
			return nil, fmt.Errorf("service account keys: %w", err)
		}
		var out []publicKey
		for _, key := range public {
			p, err := describe(key)
			if err != nil {
				return nil, err
			}
			out = append(out, p)
		}
		return out, nil
	})
	return v
}

// AuthenticateToken implements authenticator.Token. Tokens of other issuers are
// left to others.
func (v *Validator) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	hash := sha256.Sum256([]byte(token))
	c, ok := v.verified.Get(hash)
	if !ok {
		var err error
		if c, err = v.claims(token); c == nil || err != nil {
			return nil, false, err
		}
		v.verified.Put(hash, c)
	}
	wanted, ok := authenticator.AudiencesFrom(ctx)
	if !ok || len(wanted) == 0 {
		wanted = v.audiences
	}
	granted := authenticator.Audiences(c.public.Audience)
	if len(granted) == 0 {
		granted = v.audiences // tokens without audience are good for the API server
	}
	audiences := granted.Intersect(wanted)
	if len(audiences) == 0 && len(wanted) > 0 {
		return nil, false, fmt.Errorf("token audiences %q is invalid for the target audiences %q", granted, wanted)
	}
	var info *serviceaccount.ServiceAccountInfo
	var err error
	if c.public.Issuer == legacyIssuer {
		info, err = v.judgeLegacy(ctx, token, &c.public, &c.legacy)
	} else {
		info, err = v.judge(ctx, &c.public, &c.private.Kubernetes)
	}
	if err != nil {
		return nil, false, err
	}
	return &authenticator.Response{User: info.UserInfo(), Audiences: audiences}, true, nil
}

// claims verifies a token's signature and returns what it says, nil if it is
// somebody else's token.
func (v *Validator) claims(token string) (*claims, error) {
	if !v.issuers[issuerOf(token)] {
		return nil, nil
	}
	parsed, err := jwt.ParseSigned(token, algorithms)
	var foreign *jose.ErrUnexpectedSignatureAlgorithm
	if errors.As(err, &foreign) {
		return nil, jose.ErrCryptoFailure // as if a key had been tried
	}
	if err != nil {
		return nil, nil
	}
	c := &claims{}
	if err := v.verify(parsed, &c.public, &c.private, &c.legacy); err != nil {
		return nil, err
	}
	return c, nil
}

// issuerOf reads the issuer without verifying anything: only to tell whose
// token it is.
func issuerOf(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	return claims.Issuer
}

// verify tries the key the token names, or all if it names none.
func (v *Validator) verify(token *jwt.JSONWebToken, into ...any) error {
	id, algorithm := token.Headers[0].KeyID, jose.SignatureAlgorithm(token.Headers[0].Algorithm)
	keys, err := v.keys()
	if err != nil {
		return err
	}
	var failed []error
	for _, key := range keys {
		if id != "" && key.id != id {
			continue
		}
		if key.algorithm != algorithm {
			failed = append(failed, jose.ErrCryptoFailure)
			continue
		}
		err := token.Claims(key.key, into...)
		if err == nil {
			return nil
		}
		failed = append(failed, err)
	}
	if len(failed) == 0 {
		return errors.New("invalid signature, no keys found")
	}
	return utilerrors.NewAggregate(failed)
}

// judge checks the times and that everything the token is bound to is there.
func (v *Validator) judge(ctx context.Context, public *jwt.Claims, k *private) (*serviceaccount.ServiceAccountInfo, error) {
	now := time.Now()
	switch err := public.ValidateWithLeeway(jwt.Expected{Time: now}, leeway); {
	case errors.Is(err, jwt.ErrExpired):
		return nil, errors.New("service account token has expired")
	case errors.Is(err, jwt.ErrNotValidYet):
		return nil, errors.New("service account token is not valid yet")
	case err != nil:
		return nil, errors.New("service account token claims could not be validated due to unexpected validation error")
	}
	account, err := v.objects(ctx, "serviceaccounts", k.Namespace, k.ServiceAccount.Name)
	if err != nil {
		return nil, err
	}
	if over(account, now) {
		return nil, fmt.Errorf("service account %s/%s has been deleted", k.Namespace, k.ServiceAccount.Name)
	}
	if string(account.GetUID()) != k.ServiceAccount.UID {
		return nil, fmt.Errorf("service account UID (%s) does not match claim (%s)", account.GetUID(), k.ServiceAccount.UID)
	}
	info := &serviceaccount.ServiceAccountInfo{Namespace: k.Namespace, Name: k.ServiceAccount.Name, UID: k.ServiceAccount.UID}
	if public.ID != "" {
		info.CredentialID = "JTI=" + public.ID
	}
	if k.WarnAfter != nil && *k.WarnAfter != 0 {
		v.extended(ctx, public.Subject, k.WarnAfter.Time(), now)
	}
	if err := v.bound(ctx, k, info, now); err != nil {
		return nil, err
	}
	return info, nil
}

// extended counts a token that lives longer than was asked for, and tells the
// audit when it is used after the time that was.
func (v *Validator) extended(ctx context.Context, subject string, asked, now time.Time) {
	late := now.After(asked)
	v.Metrics.extended(late)
	if late {
		audit.AddAuditAnnotation(ctx, "authentication.k8s.io/stale-token",
			fmt.Sprintf("subject: %s, seconds after warning threshold: %d", subject, now.Unix()-asked.Unix()))
	}
}

// bound checks the pod, Secret or Node of a token.
func (v *Validator) bound(ctx context.Context, k *private, info *serviceaccount.ServiceAccountInfo, now time.Time) error {
	check := func(resource, namespace string, r *ref) error {
		object, err := v.objects(ctx, resource, namespace, r.Name)
		if err != nil {
			return errInvalidated
		}
		if over(object, now) {
			return errInvalidated
		}
		if uid := string(object.GetUID()); r.UID != "" && uid != r.UID {
			return fmt.Errorf("%s UID (%s) does not match service account %[1]s ref claim (%[3]s)", strings.TrimSuffix(resource, "s"), uid, r.UID)
		}
		return nil
	}
	if k.Secret != nil {
		if err := check("secrets", k.Namespace, k.Secret); err != nil {
			return err
		}
	}
	if k.Pod != nil {
		if err := check("pods", k.Namespace, k.Pod); err != nil {
			return err
		}
		info.PodName, info.PodUID = k.Pod.Name, k.Pod.UID
	}
	if k.Node != nil {
		// A token bound to a pod only tells the node; one bound to the node
		// itself dies with it.
		if k.Pod == nil {
			if err := check("nodes", "", k.Node); err != nil {
				return err
			}
		}
		info.NodeName, info.NodeUID = k.Node.Name, k.Node.UID
	}
	return nil
}

func over(object metav1.Object, now time.Time) bool {
	deleted := object.GetDeletionTimestamp()
	return deleted != nil && deleted.Time.Before(now.Add(-leeway))
}

var _ authenticator.Token = (*Validator)(nil)

// Username returns the user name of a ServiceAccount.
func Username(namespace, name string) string { return serviceaccount.MakeUsername(namespace, name) }

// User is the identity of a ServiceAccount for components in the process.
func User(namespace, name string) user.Info {
	info := serviceaccount.ServiceAccountInfo{Namespace: namespace, Name: name}
	return info.UserInfo()
}
