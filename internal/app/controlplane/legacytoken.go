// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
)

// tracking is the ConfigMap that says since when the use of tokens kept in
// Secrets is noted.
const tracking = "kube-apiserver-legacy-service-account-token-tracking"

// legacyTokens notes on Secrets when their tokens were used, which the cleaner
// of such tokens reads.
type legacyTokens struct{ notes chan note }

// note is a label for a Secret.
type note struct{ namespace, secret, label, value string }

func newLegacyTokens() *legacyTokens { return &legacyTokens{make(chan note, 64)} }

// used never blocks: what does not fit is noted at the token's next use.
func (l *legacyTokens) used(namespace, secret, label, value string) {
	select {
	case l.notes <- note{namespace, secret, label, value}:
	default:
	}
}

// run writes the notes until ctx ends.
func (l *legacyTokens) run(ctx context.Context, c client.Interface) error {
	done := map[note]bool{} // of today
	for {
		select {
		case <-ctx.Done():
			return nil
		case n := <-l.notes:
			if done[n] {
				continue
			}
			if len(done) > cap(l.notes) {
				clear(done)
			}
			patch := map[string]any{"metadata": map[string]any{"labels": map[string]string{n.label: n.value}}}
			if _, err := client.For[*corev1.Secret](c).MergePatch(ctx, n.namespace, n.secret, patch, ""); err == nil {
				done[n] = true
			}
		}
	}
}

// track creates the ConfigMap where it is missing.
func (l *legacyTokens) track(ctx context.Context, c client.Interface) error {
	maps := client.For[*corev1.ConfigMap](c)
	if _, err := maps.Get(ctx, metav1.NamespaceSystem, tracking); !apierrors.IsNotFound(err) {
		return err
	}
	_, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: tracking},
		Data: map[string]string{"since": time.Now().UTC().Format(time.DateOnly)}})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
