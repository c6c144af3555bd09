// SPDX-License-Identifier: Apache-2.0

package structured

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	authorizationcel "k8s.io/apiserver/pkg/authorization/cel"
	"k8s.io/apiserver/pkg/util/webhook"
	upstream "k8s.io/apiserver/plugin/pkg/authorizer/webhook"
	webhookmetrics "k8s.io/apiserver/plugin/pkg/authorizer/webhook/metrics"
	"k8s.io/client-go/rest"
)

// backoff is how often a webhook is asked again, as upstream does.
var backoff = wait.Backoff{Duration: 500 * time.Millisecond, Factor: 1.5, Jitter: 0.2, Steps: 5}

// newWebhook returns what asks a webhook. Nothing is dialled yet.
func newWebhook(c *apiserver.AuthorizerConfiguration) (authorizer.UnconditionalAuthorizer, error) {
	w := c.Webhook
	var client *rest.Config
	var err error
	if w.ConnectionInfo.Type == apiserver.AuthorizationWebhookConnectionInfoTypeInCluster {
		client, err = rest.InClusterConfig()
	} else {
		client, err = webhook.LoadKubeconfig(*w.ConnectionInfo.KubeConfigFile, nil)
	}
	if err != nil {
		return nil, err
	}
	client.Timeout = w.Timeout.Duration
	onError := authorizer.DecisionNoOpinion
	if w.FailurePolicy == apiserver.FailurePolicyDeny {
		onError = authorizer.DecisionDeny
	}
	var compiler authorizationcel.Compiler // an expensive one, needed for conditions only
	if len(w.MatchConditions) > 0 {
		compiler = authorizationcel.NewDefaultCompiler()
	}
	webhookmetrics.RegisterWebhookMetrics()
	authorizationcel.RegisterMetrics()
	return upstream.New(client, w.SubjectAccessReviewVersion, ttl(w.AuthorizedTTL, w.CacheAuthorizedRequests), ttl(w.UnauthorizedTTL, w.CacheUnauthorizedRequests),
		backoff, onError, w.MatchConditions, c.Name,
		metrics{WebhookMetrics: webhookmetrics.NewWebhookMetrics(), MatcherMetrics: authorizationcel.NewMatcherMetrics()}, compiler)
}

func ttl(d metav1.Duration, cached bool) time.Duration {
	if !cached {
		return 0
	}
	return d.Duration
}

// metrics are upstream's own.
type metrics struct {
	webhookmetrics.NoopRequestMetrics
	webhookmetrics.WebhookMetrics
	authorizationcel.MatcherMetrics
}
