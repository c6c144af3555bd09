// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"encoding/base64"
	"net/http"
	"net/textproto"
	"strings"
	"unicode/utf8"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/warning"
)

// bearer takes the token from the Authorization header or, for browsers that
// cannot set it, from a WebSocket sub-protocol, and removes it from the request
// once it was accepted, so that no proxy behind passes it on.
type bearer struct{ tokens []authenticator.Token }

func (b bearer) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	if token := authorizationToken(r.Header.Get("Authorization")); token != "" {
		response, ok, err := Union(b.tokens...).AuthenticateToken(r.Context(), token)
		if ok {
			r.Header.Del("Authorization")
			return response, true, nil
		}
		return nil, false, refused(err)
	}
	if spaced(r.Header.Get("Authorization")) {
		warning.AddWarning(r.Context(), "", "the provided Authorization header contains extra space before the bearer token, and is ignored")
	}
	token, rest, ok := webSocketToken(r)
	if !ok {
		return nil, false, nil
	}
	response, ok, err := Union(b.tokens...).AuthenticateToken(r.Context(), token)
	if ok {
		r.Header.Set(protocolHeader, strings.Join(rest, ","))
		return response, true, nil
	}
	return nil, false, refused(err)
}

// refused words that no one took a token: what upstream says for the tokens of
// its own process comes first.
func refused(err error) error {
	if err == nil {
		return errInvalidToken
	}
	return utilerrors.NewAggregate([]error{errInvalidToken, err})
}

func authorizationToken(header string) string {
	scheme, token, ok := strings.Cut(textproto.TrimString(header), " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	token, _, _ = strings.Cut(token, " ")
	return token
}

// spaced says whether a header has a token that is not seen for a space too many.
func spaced(header string) bool {
	scheme, rest, _ := strings.Cut(textproto.TrimString(header), " ")
	return strings.EqualFold(scheme, "bearer") && strings.HasPrefix(rest, " ")
}

const (
	protocolHeader = "Sec-Websocket-Protocol"
	protocolPrefix = "base64url.bearer.authorization.k8s.io."
)

// webSocketToken returns the token among the sub-protocols and the others. A
// token alone is not accepted: a browser would take it for the protocol spoken.
func webSocketToken(r *http.Request) (token string, rest []string, ok bool) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return "", nil, false
	}
	for _, header := range r.Header[protocolHeader] {
		for _, protocol := range strings.Split(header, ",") {
			protocol = strings.TrimSpace(protocol)
			encoded, found := strings.CutPrefix(protocol, protocolPrefix)
			if !found {
				rest = append(rest, protocol)
				continue
			}
			decoded, err := base64.RawURLEncoding.DecodeString(encoded)
			if err != nil || token != "" || !utf8.Valid(decoded) {
				return "", nil, false
			}
			token = string(decoded)
		}
	}
	return token, rest, token != "" && len(rest) > 0
}
