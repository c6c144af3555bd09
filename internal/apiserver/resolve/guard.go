// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"fmt"
	"io"
	"net/http"

	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/rest"
)

// Guard returns what lets webhooks be called with an open eye: an answer of
// more than limit bytes is an error before it fills the memory, and so is a
// redirect, which could make the API server call whatever a webhook's author
// cannot reach himself (CVE-2020-8561).
func Guard(limit int64) webhook.AuthenticationInfoResolverWrapper {
	return func(next webhook.AuthenticationInfoResolver) webhook.AuthenticationInfoResolver {
		wrap := func(c *rest.Config, err error) (*rest.Config, error) {
			if err != nil {
				return nil, err
			}
			guarded := rest.CopyConfig(c)
			guarded.Wrap(func(rt http.RoundTripper) http.RoundTripper { return &guard{rt, limit} })
			return guarded, nil
		}
		return &webhook.AuthenticationInfoResolverDelegator{
			ClientConfigForFunc: func(hostPort string) (*rest.Config, error) { return wrap(next.ClientConfigFor(hostPort)) },
			ClientConfigForServiceFunc: func(name, namespace string, port int) (*rest.Config, error) {
				return wrap(next.ClientConfigForService(name, namespace, port))
			},
		}
	}
}

type guard struct {
	next  http.RoundTripper
	limit int64
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := g.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode >= 300 && answer.StatusCode < 400 && answer.Header.Get("Location") != "" {
		answer.Body.Close()
		return nil, fmt.Errorf("the webhook answered with a redirect, which is not followed")
	}
	answer.Body = &bounded{answer.Body, g.limit, g.limit}
	return answer, nil
}

// bounded fails where a body goes on beyond its limit.
type bounded struct {
	io.ReadCloser
	left, limit int64
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left == 0 {
		// Only a further byte tells that it goes on.
		n, err := b.ReadCloser.Read(make([]byte, 1))
		if n > 0 {
			return 0, fmt.Errorf("the webhook's answer is longer than %d bytes", b.limit)
		}
		return 0, err
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	return n, err
}
