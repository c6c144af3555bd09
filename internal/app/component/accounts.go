// SPDX-License-Identifier: Apache-2.0

package component

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/oauth2"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	"kaji/internal/client"
	"kaji/internal/client/remote"
)

// tokenLife is how long a controller's token is good; it is renewed before.
const tokenLife = time.Hour

// accounts gives each controller a client of its own ServiceAccount in
// kube-system, with tokens that the root client asks for.
type accounts struct {
	root   client.Interface
	config *rest.Config
}

// client returns an account's client. The account is made if it is not there.
func (a accounts) client(name string) (client.Interface, error) {
	if name == "" {
		return a.root, nil
	}
	config := rest.AnonymousClientConfig(a.config)
	config.UserAgent = a.config.UserAgent + "/" + name
	config.Wrap(transport.ResettableTokenSourceWrapTransport(transport.NewCachedTokenSource(account{a.root, name})))
	own, err := remote.New(config)
	if err != nil {
		return nil, err
	}
	return client.WithInformers(own, a.root), nil
}

// account is the source of one ServiceAccount's tokens.
type account struct {
	root client.Interface
	name string
}

var _ oauth2.TokenSource = account{}

// Token implements oauth2.TokenSource.
func (a account) Token() (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	got, err := a.request(ctx)
	if apierrors.IsNotFound(err) {
		made := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: a.name}}
		if _, err := client.For[*corev1.ServiceAccount](a.root).Create(ctx, made); err != nil && !apierrors.IsAlreadyExists(err) {
			return nil, fmt.Errorf("service account %s: %w", a.name, err)
		}
		got, err = a.request(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("token of service account %s: %w", a.name, err)
	}
	return &oauth2.Token{AccessToken: got.Status.Token, TokenType: "Bearer", Expiry: got.Status.ExpirationTimestamp.Time}, nil
}

func (a account) request(ctx context.Context) (*authenticationv1.TokenRequest, error) {
	seconds := int64(tokenLife / time.Second)
	resource := client.For[*corev1.ServiceAccount](a.root).Resource(metav1.NamespaceSystem)
	resource.Subresource = "token"
	answer, err := a.root.Create(ctx, resource, a.name, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	got, ok := answer.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, fmt.Errorf("the server answered with a %T, want a TokenRequest", answer)
	}
	return got, nil
}
