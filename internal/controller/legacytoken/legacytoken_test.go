// SPDX-License-Identifier: Apache-2.0

package legacytoken_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/legacytoken"
)

const day = 24 * time.Hour

func TestTokensThatNobodyUses(t *testing.T) {
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{legacytoken.New(api, day, nil)}
	}
	bubble.RunAs(t, "legacy-service-account-token-cleaner", start, func(b *bubble.Bubble) {
		ctx, secrets := b.Context(), client.For[*corev1.Secret](b.API)
		bubble.Must(client.For[*corev1.ConfigMap](b.API).Create(ctx, &corev1.ConfigMap{Data: map[string]string{"since": time.Now().UTC().Format(time.DateOnly)},
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-apiserver-legacy-service-account-token-tracking"}}))(b)
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}}
		for _, name := range []string{"unused", "mounted", "used"} {
			account.Secrets = append(account.Secrets, corev1.ObjectReference{Name: name})
		}
		account = bubble.Must(client.For[*corev1.ServiceAccount](b.API).Create(ctx, account))(b)
		for _, name := range []string{"unused", "mounted", "used", "asked"} {
			s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{},
				Annotations: map[string]string{corev1.ServiceAccountNameKey: "web", corev1.ServiceAccountUIDKey: string(account.UID)}}, Type: corev1.SecretTypeServiceAccountToken}
			if name == "used" {
				s.Labels["kubernetes.io/legacy-token-last-used"] = time.Now().Add(30 * day).UTC().Format(time.DateOnly)
			}
			bubble.Must(secrets.Create(ctx, s))(b)
		}
		bubble.Must(client.For[*corev1.Pod](b.API).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "c", Image: "i"}},
			Volumes:    []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "mounted"}}}}}}))(b)
		marked := func(name string) string {
			b.Helper()
			return bubble.Must(secrets.Get(ctx, "default", name))(b).Labels["kubernetes.io/legacy-token-invalid-since"]
		}
		b.Wait(day)
		if marked("unused") != "" {
			b.Error("invalid before its time")
		}
		b.Wait(60 * time.Hour) // one day of them for the writes that fail
		if marked("unused") == "" {
			b.Error("the unused token is still valid")
		}
		b.Wait(3 * day)
		if _, err := secrets.Get(ctx, "default", "unused"); !apierrors.IsNotFound(err) {
			b.Errorf("the invalid token is still there: %v", err)
		}
		for _, name := range []string{"mounted", "used", "asked"} {
			if since := marked(name); since != "" {
				b.Errorf("%s is invalid since %s", name, since)
			}
		}
	})
}
