// SPDX-License-Identifier: Apache-2.0

package container

import (
	"net/http"
	"net/url"

	utilproxy "k8s.io/apimachinery/pkg/util/proxy"
	translate "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// The streaming library speaks SPDY and the old protocols of WebSocket. Clients
// with the newer ones are translated: this process is its own SPDY client.

// Parameters of a URL that tell the translator what Exec or Attach was asked for,
// by the names that kubelets use.
const (
	inputParam, outputParam, errorParam, ttyParam = "input", "output", "error", "tty"
)

// withStreams notes in a streaming URL which streams it is for.
func withStreams(address string, in, out, errOut, tty bool) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	query := url.Values{}
	for name, on := range map[string]bool{inputParam: in, outputParam: out, errorParam: errOut, ttyParam: tty} {
		if on {
			query.Set(name, "1")
		}
	}
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// websockets translates for a streaming server that listens at host.
func websockets(plain http.Handler, host string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		location := &url.URL{Scheme: "http", Host: host, Path: r.URL.Path}
		switch {
		case wsstream.IsWebSocketRequestWithStreamCloseProtocol(r):
			asked := r.URL.Query()
			translate.NewStreamTranslatorHandler(location, http.DefaultTransport, 0, translate.Options{
				Stdin: asked.Has(inputParam), Stdout: asked.Has(outputParam), Stderr: asked.Has(errorParam), Tty: asked.Has(ttyParam),
			}).ServeHTTP(w, r)
		case wsstream.IsWebSocketRequestWithTunnelingProtocol(r):
			spdy := utilproxy.NewUpgradeAwareHandler(location, nil, false, true, refuser{})
			translate.NewTunnelingHandler(spdy).ServeHTTP(w, r)
		default:
			plain.ServeHTTP(w, r)
		}
	})
}

// refuser answers where the streaming server cannot be reached.
type refuser struct{}

// Error implements utilproxy.ErrorResponder.
func (refuser) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusBadGateway)
}
