// SPDX-License-Identifier: Apache-2.0

package bootstraptoken_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/bootstraptoken"
	"kaji/internal/controller/bubble"
	"kaji/kajitest"
)

// run runs both controllers, each as its own account.
func run(t *testing.T, test func(b *bubble.Bubble)) {
	bubble.RunEach(t, map[string]func(client.Interface) []bubble.Controller{
		"bootstrap-signer": func(api client.Interface) []bubble.Controller {
			return []bubble.Controller{bootstraptoken.NewSigner(api, nil)}
		},
		"token-cleaner": func(api client.Interface) []bubble.Controller {
			return []bubble.Controller{bootstraptoken.NewCleaner(api, nil)}
		},
	}, test, kajitest.WithRBAC())
}

func token(b *bubble.Bubble, id, expiration, signing string) {
	b.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-" + id}, Type: corev1.SecretTypeBootstrapToken,
		Data: map[string][]byte{"token-id": []byte(id), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-signing": []byte(signing)}}
	if expiration != "" {
		s.Data["expiration"] = []byte(expiration)
	}
	bubble.Must(client.For[*corev1.Secret](b.API).Create(b.Context(), s))(b)
	b.Settle()
}

func TestClusterInfoIsSigned(t *testing.T) {
	run(t, func(b *bubble.Bubble) {
		maps := client.For[*corev1.ConfigMap](b.API)
		signatures := func() (out []string) {
			b.Helper()
			for key := range bubble.Must(maps.Get(b.Context(), "kube-public", "cluster-info"))(b).Data {
				if id, ok := strings.CutPrefix(key, "jws-kubeconfig-"); ok {
					out = append(out, id)
				}
			}
			slices.Sort(out)
			return out
		}
		token(b, "aaaaaa", "", "true")
		info := bubble.Must(maps.Create(b.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-public", Name: "cluster-info"},
			Data: map[string]string{"kubeconfig": "hello", "jws-kubeconfig-zzzzzz": "of one that is gone"}}))(b)
		b.Settle()
		token(b, "bbbbbb", "", "false")
		token(b, "cccccc", time.Now().Add(time.Hour).Format(time.RFC3339), "true")
		if got := signatures(); !slices.Equal(got, []string{"aaaaaa", "cccccc"}) {
			b.Fatalf("signed by %v", got)
		}
		// As openssl has it.
		const want = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFhYWFhYSJ9..vh4yKqQb9ROYgF36oENmzq7Y4tnPm6-8JfkG7bH_PV4"
		if got := bubble.Must(maps.Get(b.Context(), "kube-public", "cluster-info"))(b).Data["jws-kubeconfig-aaaaaa"]; got != want {
			b.Errorf("the signature is %s", got)
		}
		b.Wait(time.Hour)
		if got := signatures(); !slices.Equal(got, []string{"aaaaaa"}) {
			b.Errorf("an hour later signed by %v", got)
		}
		first := bubble.Must(maps.Get(b.Context(), info.Namespace, info.Name))(b).DeepCopy()
		before := first.Data["jws-kubeconfig-aaaaaa"]
		first.Data["kubeconfig"] = "other"
		bubble.Must(maps.Update(b.Context(), first))(b)
		b.Settle()
		if after := bubble.Must(maps.Get(b.Context(), info.Namespace, info.Name))(b).Data["jws-kubeconfig-aaaaaa"]; after == before || after == "" {
			b.Errorf("another content has the signature %q", after)
		}
	})
}

func TestTokensThatExpiredGo(t *testing.T) {
	run(t, func(b *bubble.Bubble) {
		token(b, "aaaaaa", time.Now().Add(time.Hour).Format(time.RFC3339), "true")
		token(b, "bbbbbb", "", "true")
		token(b, "cccccc", "tomorrow", "true")
		there := func(id string) bool {
			b.Helper()
			_, err := client.For[*corev1.Secret](b.API).Get(b.Context(), "kube-system", "bootstrap-token-"+id)
			if err != nil && !apierrors.IsNotFound(err) {
				b.Fatal(err)
			}
			return err == nil
		}
		if !there("aaaaaa") || !there("bbbbbb") || there("cccccc") {
			b.Errorf("at first: %v %v %v", there("aaaaaa"), there("bbbbbb"), there("cccccc"))
		}
		b.Wait(time.Hour)
		if there("aaaaaa") || !there("bbbbbb") {
			b.Errorf("an hour later: %v %v", there("aaaaaa"), there("bbbbbb"))
		}
	})
}
