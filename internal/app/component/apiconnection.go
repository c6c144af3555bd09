// SPDX-License-Identifier: Apache-2.0

package component

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
)

// apiConnection are the flags about requests to the API server. What is not given
// changes nothing: the server's priority and fairness is the limit, and built-in
// kinds travel as protobuf.
type apiConnection struct {
	qps         float32
	burst       int
	contentType string
	given       *pflag.FlagSet
}

func (a *apiConnection) addFlags(fs *pflag.FlagSet) {
	fs.Float32Var(&a.qps, "kube-api-qps", 20, "Requests a second to the API server, of each controller with --use-service-account-credentials; without the flag there is no limit.")
	fs.IntVar(&a.burst, "kube-api-burst", 30, "Requests that may come at once where they are limited.")
	fs.StringVar(&a.contentType, "kube-api-content-type", runtime.ContentTypeProtobuf, "Content type of requests sent to apiserver.")
	a.given = fs
}

// apply changes a configuration of clients, and has the waits counted.
func (a *apiConnection) apply(c *rest.Config, r prometheus.Registerer) {
	if a == nil || a.given == nil {
		return
	}
	if a.given.Changed("kube-api-content-type") && a.contentType != runtime.ContentTypeProtobuf {
		c.ContentType = a.contentType
	}
	if qps := a.qps; qps > 0 && (a.given.Changed("kube-api-qps") || a.given.Changed("kube-api-burst")) {
		waits := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "rest_client_rate_limiter_duration_seconds", Help: "Client side rate limiter latency in seconds. Broken down by verb, and host.",
			Buckets: []float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60}}, []string{"verb", "host"})
		r.MustRegister(waits)
		c.Wrap(func(rt http.RoundTripper) http.RoundTripper {
			return &limited{rt, flowcontrol.NewTokenBucketRateLimiter(qps, a.burst), waits}
		})
	}
}

// limited lets so many requests through; waits may be nil.
type limited struct {
	http.RoundTripper
	limit flowcontrol.RateLimiter
	waits *prometheus.HistogramVec
}

// RoundTrip implements http.RoundTripper.
func (l *limited) RoundTrip(r *http.Request) (*http.Response, error) {
	began := time.Now()
	if err := l.limit.Wait(r.Context()); err != nil {
		return nil, err
	}
	if l.waits != nil {
		l.waits.WithLabelValues(r.Method, r.URL.Host).Observe(time.Since(began).Seconds())
	}
	return l.RoundTripper.RoundTrip(r)
}

// WrappedRoundTripper lets client libraries look beneath, to close connections.
func (l *limited) WrappedRoundTripper() http.RoundTripper { return l.RoundTripper }
