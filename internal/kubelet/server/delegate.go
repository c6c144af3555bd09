// SPDX-License-Identifier: Apache-2.0

package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/client"
)

// Delegate authenticates and authorizes by asking the API server, and
// remembers its answers for a short while.
type Delegate struct {
	Client client.Interface
	// ClientCA returns those that verify client certificates; nil accepts none.
	ClientCA func() *x509.CertPool
	// Anonymous lets requests without credentials in as system:anonymous.
	Anonymous bool
	// KeepTokens, KeepAllowed and KeepDenied are how long answers are remembered; zero
	// means upstream's 2 min, 5 min and 30 s.
	KeepTokens, KeepAllowed, KeepDenied time.Duration
	// NoWebhook refuses bearer tokens instead of asking about them.
	NoWebhook bool

	tokens, decisions memory
}

var (
	_ authenticator.Request              = (*Delegate)(nil)
	_ authorizer.UnconditionalAuthorizer = (*Delegate)(nil)
)

// How long answers are remembered, as upstream has it.
const (
	keepToken = 2 * time.Minute
	keepAllow = 5 * time.Minute
	keepDeny  = 30 * time.Second
)

// AuthenticateRequest implements authenticator.Request.
func (d *Delegate) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && d.ClientCA != nil {
		return d.certificate(r.TLS.PeerCertificates)
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "bearer") && token != "" && !d.NoWebhook {
		return d.token(r.Context(), strings.TrimSpace(token))
	}
	if d.Anonymous && r.Header.Get("Authorization") == "" {
		return &authenticator.Response{User: &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}}, true, nil
	}
	return nil, false, nil
}

func (d *Delegate) certificate(chain []*x509.Certificate) (*authenticator.Response, bool, error) {
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: d.ClientCA(), Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return nil, false, fmt.Errorf("verify the client's certificate: %w", err)
	}
	name := chain[0].Subject.CommonName
	if name == "" {
		return nil, false, errors.New("the client's certificate has no common name")
	}
	groups := append(append([]string(nil), chain[0].Subject.Organization...), user.AllAuthenticated)
	return &authenticator.Response{User: &user.DefaultInfo{Name: name, Groups: groups}}, true, nil
}

func (d *Delegate) token(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	key := sha256.Sum256([]byte(token))
	if kept, ok := d.tokens.get(key); ok {
		who, _ := kept.(user.Info)
		return &authenticator.Response{User: who}, who != nil, nil
	}
	answer, err := d.Client.Create(ctx, client.Resource{GroupVersionResource: authenticationv1.SchemeGroupVersion.WithResource("tokenreviews")}, "",
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return nil, false, fmt.Errorf("review a token: %w", err)
	}
	review, ok := answer.(*authenticationv1.TokenReview)
	if !ok {
		return nil, false, fmt.Errorf("the server answered with a %T, want a TokenReview", answer)
	}
	if !review.Status.Authenticated {
		d.tokens.put(key, nil, cmp.Or(d.KeepTokens, keepToken))
		return nil, false, nil
	}
	u := review.Status.User
	who := &user.DefaultInfo{Name: u.Username, UID: u.UID, Groups: u.Groups, Extra: map[string][]string{}}
	for k, v := range u.Extra {
		who.Extra[k] = v
	}
	d.tokens.put(key, user.Info(who), cmp.Or(d.KeepTokens, keepToken))
	return &authenticator.Response{User: who}, true, nil
}

// Authorize implements authorizer.Authorizer.
func (d *Delegate) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	u := a.GetUser()
	key := sha256.Sum256([]byte(fmt.Sprintf("%q %q %q %q %q %q %q", u.GetName(), u.GetGroups(), u.GetExtra(), a.GetVerb(), a.GetSubresource(), a.GetName(), a.GetPath())))
	if kept, ok := d.decisions.get(key); ok {
		return kept.(authorizer.Decision), "", nil
	}
	spec := authorizationv1.SubjectAccessReviewSpec{User: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups(), Extra: map[string]authorizationv1.ExtraValue{},
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: a.GetVerb(), Version: a.GetAPIVersion(), Resource: a.GetResource(), Subresource: a.GetSubresource(), Name: a.GetName()}}
	if !a.IsResourceRequest() {
		spec.ResourceAttributes, spec.NonResourceAttributes = nil, &authorizationv1.NonResourceAttributes{Path: a.GetPath(), Verb: a.GetVerb()}
	}
	for k, v := range u.GetExtra() {
		spec.Extra[k] = v
	}
	answer, err := d.Client.Create(ctx, client.Resource{GroupVersionResource: authorizationv1.SchemeGroupVersion.WithResource("subjectaccessreviews")}, "",
		&authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		return authorizer.DecisionDeny, "", fmt.Errorf("review access: %w", err)
	}
	review, ok := answer.(*authorizationv1.SubjectAccessReview)
	if !ok {
		return authorizer.DecisionDeny, "", fmt.Errorf("the server answered with a %T, want a SubjectAccessReview", answer)
	}
	decision, keep := authorizer.DecisionNoOpinion, cmp.Or(d.KeepDenied, keepDeny)
	switch {
	case review.Status.Allowed:
		decision, keep = authorizer.DecisionAllow, cmp.Or(d.KeepAllowed, keepAllow)
	case review.Status.Denied:
		decision = authorizer.DecisionDeny
	}
	d.decisions.put(key, decision, keep)
	return decision, review.Status.Reason, nil
}

// memory keeps answers until they expire; it holds a bounded number of them.
type memory struct {
	mu   sync.Mutex // guards kept
	kept map[[32]byte]answer
}

type answer struct {
	value   any
	expires time.Time
}

const maxKept = 4096

func (m *memory) get(key [32]byte) (any, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.kept[key]
	if !ok || time.Now().After(a.expires) {
		return nil, false
	}
	return a.value, true
}

func (m *memory) put(key [32]byte, value any, keep time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kept == nil || len(m.kept) >= maxKept {
		m.kept = map[[32]byte]answer{} // starting over is cheaper than choosing
	}
	m.kept[key] = answer{value, time.Now().Add(keep)}
}
