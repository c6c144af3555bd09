// SPDX-License-Identifier: Apache-2.0

package serviceaccounttoken_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/serviceaccounttoken"
)

func TestSecretsOfAccounts(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{serviceaccounttoken.New(serviceaccounttoken.Config{Client: api, RootCA: []byte("PEM"), Key: func() (crypto.Signer, error) { return key, nil }})}
	}
	bubble.Run(t, start, func(b *bubble.Bubble) {
		ctx, secrets, accounts := b.Context(), client.For[*corev1.Secret](b.API), client.For[*corev1.ServiceAccount](b.API)
		account := bubble.Must(accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Secrets: []corev1.ObjectReference{{Name: "t"}}}))(b)
		for name, of := range map[string]string{"t": "web", "u": "nobody"} {
			bubble.Must(secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: of}},
				Type: corev1.SecretTypeServiceAccountToken}))(b)
		}
		b.Settle()
		if _, err := secrets.Get(ctx, "default", "u"); !apierrors.IsNotFound(err) {
			b.Errorf("nobody's token stayed: %v", err)
		}
		s := bubble.Must(secrets.Get(ctx, "default", "t"))(b)
		if string(s.Data["ca.crt"]) != "PEM" || string(s.Data["namespace"]) != "default" || s.Annotations[corev1.ServiceAccountUIDKey] != string(account.UID) {
			b.Errorf("got %v %v", s.Data, s.Annotations)
		}
		token := bubble.Must(jwt.ParseSigned(string(s.Data["token"]), []jose.SignatureAlgorithm{jose.ES256}))(b)
		said := map[string]any{}
		if err := token.Claims(key.Public(), &said); err != nil {
			b.Fatal(err)
		}
		if said["sub"] != "system:serviceaccount:default:web" || said["iss"] != "kubernetes/serviceaccount" || said["kubernetes.io/serviceaccount/secret.name"] != "t" ||
			said["kubernetes.io/serviceaccount/service-account.uid"] != string(account.UID) || said["exp"] != nil {
			b.Errorf("claims %v", said)
		}
		if err := secrets.Delete(ctx, "default", "t", metav1.DeleteOptions{}); err != nil {
			b.Fatal(err)
		}
		b.Settle()
		if got := bubble.Must(accounts.Get(ctx, "default", "web"))(b); len(got.Secrets) > 0 {
			b.Errorf("the account still lists %v", got.Secrets)
		}
		bubble.Must(secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "v", Annotations: map[string]string{corev1.ServiceAccountNameKey: "web"}},
			Type: corev1.SecretTypeServiceAccountToken}))(b)
		b.Settle()
		if err := accounts.Delete(ctx, "default", "web", metav1.DeleteOptions{}); err != nil {
			b.Fatal(err)
		}
		b.Settle()
		if _, err := secrets.Get(ctx, "default", "v"); !apierrors.IsNotFound(err) {
			b.Errorf("the account is gone, its token stayed: %v", err)
		}
	})
}
