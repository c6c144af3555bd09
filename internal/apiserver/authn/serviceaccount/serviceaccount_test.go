// SPDX-License-Identifier: Apache-2.0

package serviceaccount

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/utils/ptr"

	"kaji/internal/apiserver/authn/verified"
)

const issuerURL = "https://kubernetes.default.svc"

// world is a cluster of a few objects.
type world struct {
	t         testing.TB
	objects   map[string]metav1.Object
	issuer    *Issuer
	validator *Validator
	account   *corev1.ServiceAccount
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, objects: map[string]metav1.Object{}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	objects := func(_ context.Context, resource, namespace, name string) (metav1.Object, error) {
		if o, ok := w.objects[resource+"/"+namespace+"/"+name]; ok {
			return o, nil
		}
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: resource}, name)
	}
	w.issuer = NewIssuer(Issuer{URL: issuerURL, Audiences: []string{issuerURL}, Extend: true, Objects: objects},
		func() (crypto.Signer, error) { return key, nil })
	w.validator = NewValidator([]string{issuerURL}, func() ([]crypto.PublicKey, error) { return []crypto.PublicKey{key.Public()}, nil }, []string{issuerURL}, objects)
	w.account = &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "sa-uid"}}
	w.objects["serviceaccounts/shop/web"] = w.account
	w.objects["pods/shop/web-0"] = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0", UID: "pod-uid"},
		Spec: corev1.PodSpec{ServiceAccountName: "web", NodeName: "n1"}}
	w.objects["nodes//n1"] = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "node-uid"}}
	return w
}

func (w *world) issue(spec authenticationv1.TokenRequestSpec) *authenticationv1.TokenRequest {
	w.t.Helper()
	out, err := w.issuer.Issue(context.Background(), w.account, &authenticationv1.TokenRequest{Spec: spec})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func toPod(name string, uid types.UID) *authenticationv1.BoundObjectReference {
	return &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: name, UID: uid}
}

func (w *world) authenticate(token string, audiences ...string) (*authenticator.Response, error) {
	ctx := context.Background()
	if len(audiences) > 0 {
		ctx = authenticator.WithAudiences(ctx, audiences)
	}
	r, ok, err := w.validator.AuthenticateToken(ctx, token)
	if !ok && err == nil {
		w.t.Fatal("the token was taken for somebody else's")
	}
	return r, err
}

func TestAPodsTokenLivesAndDiesWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		token := w.issue(authenticationv1.TokenRequestSpec{BoundObjectRef: toPod("web-0", "pod-uid"), ExpirationSeconds: ptr.To(int64(3607))})
		r, err := w.authenticate(token.Status.Token)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.User.GetName(); got != "system:serviceaccount:shop:web" {
			t.Errorf("user %q", got)
		}
		if got := strings.Join(r.User.GetGroups(), ","); got != "system:serviceaccounts,system:serviceaccounts:shop" {
			t.Errorf("groups %q", got)
		}
		for key, want := range map[string]string{
			"authentication.kubernetes.io/pod-name": "web-0", "authentication.kubernetes.io/pod-uid": "pod-uid",
			"authentication.kubernetes.io/node-name": "n1", "authentication.kubernetes.io/node-uid": "node-uid",
		} {
			if got := r.User.GetExtra()[key]; len(got) != 1 || got[0] != want {
				t.Errorf("%s: %q, want %q", key, got, want)
			}
		}
		if got := token.Status.ExpirationTimestamp.Sub(time.Now()); got > 3607*time.Second {
			t.Errorf("the agent is told to refresh after %v only", got)
		}
		<-time.After(30 * 24 * time.Hour) // a pod that never reads its token anew
		if _, err := w.authenticate(token.Status.Token); err != nil {
			t.Errorf("after a month: %v", err)
		}
		deleted := metav1.Now()
		w.objects["pods/shop/web-0"].(*corev1.Pod).DeletionTimestamp = &deleted
		if _, err := w.authenticate(token.Status.Token); err != nil {
			t.Errorf("while its pod ends: %v", err)
		}
		delete(w.objects, "pods/shop/web-0")
		if _, err := w.authenticate(token.Status.Token); err == nil || err.Error() != "service account token has been invalidated" {
			t.Errorf("after its pod: %v", err)
		}
	})
}

// byPublicKey signs the claims of a token by what everybody can read: the public
// key, taken for a secret (HS256).
func (w *world) byPublicKey(token string) string {
	w.t.Helper()
	keys, err := w.validator.keys()
	if err != nil {
		w.t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(keys[0].key)
	if err != nil {
		w.t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	signed := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + strings.Split(token, ".")[1]
	mac := hmac.New(sha256.New, public)
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func TestTokensThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		plain := w.issue(authenticationv1.TokenRequestSpec{}).Status.Token
		other := w.issue(authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}}).Status.Token
		if r, err := w.authenticate(other, "vault", "x"); err != nil || len(r.Audiences) != 1 || r.Audiences[0] != "vault" {
			t.Errorf("for its own audience: %v, %v", r, err)
		}
		refuse := func(token, want string) {
			t.Helper()
			if _, err := w.authenticate(token); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		}
		refuse(other, `token audiences ["vault"] is invalid for the target audiences`)
		parts := strings.Split(plain, ".")
		if payload, err := base64.RawURLEncoding.DecodeString(parts[1]); err != nil || !strings.Contains(string(payload), `"aud":["`+issuerURL+`"]`) {
			t.Errorf("claims %s, %v", payload, err)
		}
		refuse(parts[0]+"."+parts[1]+"."+base64.RawURLEncoding.EncodeToString(make([]byte, 64)), "error in cryptographic primitive")
		foreign := newWorld(t)
		refuse(foreign.issue(authenticationv1.TokenRequestSpec{}).Status.Token, "invalid signature, no keys found")
		none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
		refuse(none+"."+parts[1]+".", "error in cryptographic primitive")
		for n := range len(plain) {
			if _, ok, _ := w.validator.AuthenticateToken(context.Background(), plain[:n]); ok {
				t.Errorf("the first %d bytes of a token were accepted", n)
			}
		}
		refuse(w.byPublicKey(plain), "error in cryptographic primitive")
		refuse(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"unknown"}`))+"."+parts[1]+"."+parts[2], "invalid signature, no keys found")
		w.account.UID = "another"
		refuse(plain, "does not match claim")
		w.account.UID = "sa-uid"
		<-time.After(2 * time.Hour)
		refuse(plain, "service account token has expired")
	})
}

func TestTokenRequestsThatAreRefused(t *testing.T) {
	w := newWorld(t)
	for want, spec := range map[string]authenticationv1.TokenRequestSpec{
		"may not specify a duration less than 10 minutes":         {ExpirationSeconds: ptr.To(int64(60))},
		"may not specify a duration larger than 2^32 seconds":     {ExpirationSeconds: ptr.To(int64(1)<<32 + 1)},
		"does not match the UID in record":                        {BoundObjectRef: toPod("web-0", "old")},
		`pods "gone" not found`:                                   {BoundObjectRef: toPod("gone", "")},
		"Name parameter required.":                                {BoundObjectRef: toPod("", "")},
		"cannot bind token to object of type /v1, Kind=ConfigMap": {BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "ConfigMap", APIVersion: "v1", Name: "x"}},
	} {
		_, err := w.issuer.Issue(context.Background(), w.account, &authenticationv1.TokenRequest{Spec: spec})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	other := &authenticationv1.TokenRequest{ObjectMeta: metav1.ObjectMeta{UID: "former"}}
	if _, err := w.issuer.Issue(context.Background(), w.account, other); !apierrors.IsConflict(err) {
		t.Errorf("for a ServiceAccount that is gone: %v", err)
	}
}

// A token is verified once and judged at every use; the memory is bounded, and
// what is in use stays.
func TestVerifiedOnce(t *testing.T) {
	w := newWorld(t)
	asked := 0
	keys := w.validator.keys
	w.validator.keys = func() ([]publicKey, error) { asked++; return keys() }
	token := w.issue(authenticationv1.TokenRequestSpec{BoundObjectRef: toPod("web-0", "pod-uid")}).Status.Token
	for range 3 {
		if _, err := w.authenticate(token); err != nil {
			t.Fatal(err)
		}
	}
	if asked != 1 {
		t.Errorf("the signature was verified %d times", asked)
	}
	if _, err := w.authenticate(token, "others"); err == nil {
		t.Error("a verified token is good for any audience")
	}
	if _, err := w.authenticate(token[:len(token)-4] + "AAAA"); err == nil {
		t.Error("a verified token's claims are good with any signature")
	}
	asked = 0
	for i := range 3 * verified.Generation {
		w.validator.verified.Put([sha256.Size]byte{byte(i), byte(i >> 8), 1}, &claims{})
		if i%verified.Generation == 0 {
			if _, err := w.authenticate(token); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := w.validator.verified.Len(); n > 2*verified.Generation {
		t.Errorf("%d tokens are kept", n)
	}
	if asked != 0 {
		t.Errorf("a token in use was forgotten and verified %d times", asked)
	}
	delete(w.objects, "pods/shop/web-0")
	if _, err := w.authenticate(token); err == nil {
		t.Error("a verified token outlives its pod")
	}
}

func TestDiscoveryDocuments(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set, err := KeySet([]crypto.PublicKey{key.Public()})
	if err != nil || !strings.Contains(string(set), `"kty":"EC"`) || strings.Contains(string(set), `"d":`) {
		t.Errorf("%s, %v", set, err)
	}
	doc, err := Discovery(issuerURL, issuerURL+"/openid/v1/jwks", []crypto.PublicKey{key.Public()})
	var parsed map[string]any
	if err != nil || json.Unmarshal(doc, &parsed) != nil || parsed["issuer"] != issuerURL {
		t.Errorf("%s, %v", doc, err)
	}
}

// A token in a Secret is good as long as the Secret holds that very token.
func TestTokensKeptInSecrets(t *testing.T) {
	w := newWorld(t)
	sign := func(claims any) string {
		t.Helper()
		signer, err := w.issuer.signer()
		if err != nil {
			t.Fatal(err)
		}
		token, err := jwt.Signed(signer).Claims(jwt.Claims{Issuer: legacyIssuer, Subject: "system:serviceaccount:shop:web"}).Claims(claims).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := legacyClaims{Namespace: "shop", SecretName: "tok", ServiceAccount: "web", UID: "sa-uid"}
	token := sign(good)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "tok"}, Type: corev1.SecretTypeServiceAccountToken,
		Data: map[string][]byte{"token": []byte(token)}}
	w.objects["secrets/shop/tok"] = secret
	var noted []string
	w.validator.Used = func(namespace, secret, label, day string) { noted = append(noted, namespace+"/"+secret+" "+label) }
	if r, err := w.authenticate(token); err != nil || r.User.GetName() != "system:serviceaccount:shop:web" {
		t.Errorf("good: %v, %v", r, err)
	}
	secret.Labels = map[string]string{lastUsed: time.Now().UTC().Format(day)}
	if _, err := w.authenticate(token); err != nil || len(noted) != 1 || noted[0] != "shop/tok kubernetes.io/legacy-token-last-used" {
		t.Errorf("noted %v, %v", noted, err)
	}
	refuse := func(token, want string) {
		t.Helper()
		if _, err := w.authenticate(token); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	bare := good
	bare.SecretName = ""
	refuse(sign(bare), "secretName claim is missing")
	bare = good
	bare.ServiceAccount = "db"
	refuse(sign(bare), "sub claim is invalid")
	secret.Labels[invalidSince] = "2026-01-01"
	refuse(token, "has been marked invalid")
	delete(secret.Labels, invalidSince)
	secret.Data["token"] = []byte("rotated")
	refuse(token, "service account token does not match server's copy")
	delete(w.objects, "secrets/shop/tok")
	refuse(token, "service account token has been invalidated")
}

func FuzzAuthenticateToken(f *testing.F) {
	w := newWorld(f)
	good := w.issue(authenticationv1.TokenRequestSpec{}).Status.Token
	f.Add(good)
	f.Add("a.b.c")
	f.Add(w.byPublicKey(good))
	f.Add(good[:strings.LastIndex(good, ".")+1])
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + good[strings.Index(good, "."):])
	f.Fuzz(func(t *testing.T, token string) {
		if _, ok, _ := w.validator.AuthenticateToken(context.Background(), token); ok && token != good {
			t.Fatalf("accepted %q", token)
		}
	})
}
