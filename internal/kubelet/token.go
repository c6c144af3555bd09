// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
)

// maxTokenAge is when a token is renewed however long it is good for.
const maxTokenAge = 24 * time.Hour

// tokens issues service account tokens for pods and keeps each until four
// fifths of its life are over.
type tokens struct {
	client client.Interface
	mu     sync.Mutex // guards issued
	issued map[types.UID]map[string]issuedToken
}

type issuedToken struct {
	token     string
	refreshAt time.Time
	expires   time.Time
}

func newTokens(c client.Interface) *tokens {
	return &tokens{client: c, issued: map[types.UID]map[string]issuedToken{}}
}

// get returns a token for a projection, a kept one if that is young enough.
func (t *tokens) get(ctx context.Context, pod *corev1.Pod, spec *corev1.ServiceAccountTokenProjection) (string, error) {
	var audiences []string
	if spec.Audience != "" {
		audiences = []string{spec.Audience}
	}
	seconds := int64(3600)
	if spec.ExpirationSeconds != nil {
		seconds = *spec.ExpirationSeconds
	}
	return t.issue(ctx, pod, audiences, seconds)
}

func (t *tokens) issue(ctx context.Context, pod *corev1.Pod, audiences []string, seconds int64) (string, error) {
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	key := fmt.Sprintf("%s %d %s", account, seconds, strings.Join(slices.Sorted(slices.Values(audiences)), " "))
	now := time.Now()
	t.mu.Lock()
	kept, ok := t.issued[pod.UID][key]
	t.mu.Unlock()
	if ok && now.Before(kept.refreshAt) {
		return kept.token, nil
	}
	answer, err := t.client.Create(ctx, client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("serviceaccounts"),
		Namespace: pod.Namespace, Subresource: "token"}, account, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: audiences, ExpirationSeconds: &seconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}}, metav1.CreateOptions{})
	if err != nil {
		if ok && now.Before(kept.expires) {
			return kept.token, nil // still good; the next look tries again
		}
		return "", err
	}
	request, ok := answer.(*authenticationv1.TokenRequest)
	if !ok {
		return "", fmt.Errorf("the server answered with a %T, want a TokenRequest", answer)
	}
	life := time.Duration(seconds) * time.Second
	if request.Spec.ExpirationSeconds != nil {
		life = time.Duration(*request.Spec.ExpirationSeconds) * time.Second
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.issued[pod.UID] == nil {
		t.issued[pod.UID] = map[string]issuedToken{}
	}
	t.issued[pod.UID][key] = issuedToken{request.Status.Token, now.Add(min(life*4/5, maxTokenAge)), now.Add(life)}
	return request.Status.Token, nil
}

// refreshAt is when the first token of a pod wants to be renewed; zero for none.
func (t *tokens) refreshAt(uid types.UID) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	var at time.Time
	for _, one := range t.issued[uid] {
		at = earliest(at, one.refreshAt)
	}
	// One that could not be renewed is not tried again at once.
	if !at.IsZero() && time.Now().After(at) {
		return time.Now().Add(30 * time.Second)
	}
	return at
}

func (t *tokens) forget(uid types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.issued, uid)
}
