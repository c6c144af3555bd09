// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Trust are the metrics of the stations that find out who asks and whether he
// may, of the API server and of every component that serves. Create it with
// NewTrust; its methods are safe for concurrent use, and nil counts nothing.
type Trust struct {
	users, attempts, decisions *prometheus.CounterVec
	authnTimes, authzTimes     *prometheus.HistogramVec
}

// NewTrust returns metrics in which everything is zero.
func NewTrust() *Trust {
	counter := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: "[ALPHA] " + help}, []string{label})
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: "[ALPHA] " + help,
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}, []string{"result"})
	}
	return &Trust{
		users:      counter("authenticated_user_requests", "Counter of authenticated requests broken out by username.", "username"),
		attempts:   counter("authentication_attempts", "Counter of authenticated attempts.", "result"),
		decisions:  counter("authorization_attempts_total", "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.", "result"),
		authnTimes: histogram("authentication_duration_seconds", "Authentication duration in seconds broken out by result."),
		authzTimes: histogram("authorization_duration_seconds", "Authorization duration in seconds broken out by result."),
	}
}

// Collectors are to be registered.
func (t *Trust) Collectors() []prometheus.Collector {
	return []prometheus.Collector{t.users, t.attempts, t.decisions, t.authnTimes, t.authzTimes}
}

// Authenticated counts an attempt to be recognised.
func (t *Trust) Authenticated(who *authenticator.Response, ok bool, err error, took time.Duration) {
	if t == nil {
		return
	}
	result := "success"
	switch {
	case err != nil:
		result = "error"
	case !ok || who == nil:
		result = "failure"
	default:
		t.users.WithLabelValues(sortOf(who.User.GetName())).Inc()
	}
	t.attempts.WithLabelValues(result).Inc()
	t.authnTimes.WithLabelValues(result).Observe(took.Seconds())
}

// Authorized counts a decision.
func (t *Trust) Authorized(d authorizer.Decision, err error, took time.Duration) {
	if t == nil {
		return
	}
	result := "allowed"
	switch {
	case d == authorizer.DecisionAllow:
	case err != nil:
		result = "error"
	case d == authorizer.DecisionDeny:
		result = "denied"
	default:
		result = "no-opinion"
	}
	t.decisions.WithLabelValues(result).Inc()
	t.authzTimes.WithLabelValues(result).Observe(took.Seconds())
}

// sortOf keeps the number of labels small: the few users every cluster has, and
// sorts of others.
func sortOf(username string) string {
	switch username {
	case "admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default":
		return username
	}
	if strings.Contains(username, "@") {
		return "email_id"
	}
	return "other"
}
