// SPDX-License-Identifier: Apache-2.0

package bootstraptoken

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const token = "abcdef.0123456789abcdef"

// secret is a good one, changed by f.
func secret(f func(*corev1.Secret)) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-abcdef"}, Type: corev1.SecretTypeBootstrapToken,
		Data: map[string][]byte{"token-id": []byte("abcdef"), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true")}}
	f(s)
	return s
}

// ask returns "user group,group" or nothing.
func ask(t *testing.T, s *corev1.Secret, token string) string {
	t.Helper()
	a := &Authenticator{Logger: slog.New(slog.DiscardHandler), Objects: func(_ context.Context, resource, namespace, name string) (metav1.Object, error) {
		if s == nil || resource != "secrets" || namespace != s.Namespace || name != s.Name {
			return nil, apierrors.NewNotFound(corev1.Resource(resource), name)
		}
		return s, nil
	}}
	r, ok, err := a.AuthenticateToken(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return ""
	}
	return r.User.GetName() + " " + strings.Join(r.User.GetGroups(), ",")
}

func TestBootstrapTokens(t *testing.T) {
	set := func(key, value string) func(*corev1.Secret) {
		return func(s *corev1.Secret) { s.Data[key] = []byte(value) }
	}
	const good = "system:bootstrap:abcdef system:bootstrappers"
	deleted := metav1.Now()
	for name, c := range map[string]struct {
		change func(*corev1.Secret)
		token  string
		want   string
	}{
		"good":              {func(*corev1.Secret) {}, token, good},
		"with groups":       {set("auth-extra-groups", "system:bootstrappers:b,system:bootstrappers:a"), token, good + ",system:bootstrappers:a,system:bootstrappers:b"},
		"to last":           {set("expiration", time.Now().Add(time.Hour).Format(time.RFC3339)), token, good},
		"expired":           {set("expiration", time.Now().Add(-time.Second).Format(time.RFC3339)), token, ""},
		"unreadable time":   {set("expiration", "tomorrow"), token, ""},
		"foreign group":     {set("auth-extra-groups", "system:masters"), token, ""},
		"not for this":      {set("usage-bootstrap-authentication", "false"), token, ""},
		"other id":          {set("token-id", "abcdeg"), token, ""},
		"other type":        {func(s *corev1.Secret) { s.Type = "Opaque" }, token, ""},
		"going":             {func(s *corev1.Secret) { s.DeletionTimestamp = &deleted }, token, ""},
		"wrong secret":      {func(*corev1.Secret) {}, "abcdef.0123456789abcdee", ""},
		"no secret stored":  {func(s *corev1.Secret) { delete(s.Data, "token-secret") }, token, ""},
		"unknown":           {func(*corev1.Secret) {}, "abcdeg.0123456789abcdef", ""},
		"not of the form":   {func(*corev1.Secret) {}, "ABCDEF.0123456789abcdef", ""},
		"with a line break": {func(*corev1.Secret) {}, token + "\n", ""},
	} {
		if got := ask(t, secret(c.change), c.token); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
