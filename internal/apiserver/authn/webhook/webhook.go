// SPDX-License-Identifier: Apache-2.0

// Package webhook lets another server judge bearer tokens, by TokenReviews
// (--authentication-token-webhook-config-file). Answers are kept for a while, as
// upstream keeps them; a server that is down makes its tokens unknown and nobody
// else's.
package webhook

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/pkg/util/webhook"
	upstream "k8s.io/apiserver/plugin/pkg/authenticator/token/webhook"
)

// backoff is how often it is asked again, as upstream does.
var backoff = wait.Backoff{Duration: 500 * time.Millisecond, Factor: 1.5, Jitter: 0.2, Steps: 5}

// New returns the authenticator that asks the server of a kubeconfig in a
// version of TokenReview. audiences are the API server's own; ttl is how long
// answers are kept, zero keeps none. A question may last 30 s, as upstream's.
func New(kubeconfig, version string, audiences authenticator.Audiences, ttl time.Duration) (authenticator.Token, error) {
	client, err := webhook.LoadKubeconfig(kubeconfig, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kubeconfig, err)
	}
	token, err := upstream.New(client, version, audiences, backoff)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kubeconfig, err)
	}
	if ttl <= 0 {
		return token, nil
	}
	return cache.New(token, false, ttl, ttl), nil
}
