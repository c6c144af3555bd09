// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"kaji/internal/ingress/annotation"
)

// Preflight answers a browser that asks whether it may ask.
func Preflight(w http.ResponseWriter, s *annotation.CORS, asked http.Header) {
	h := w.Header()
	named := func(allowed, wanted string) string {
		if s.Named && allowed == "*" {
			return asked.Get(wanted)
		}
		return allowed
	}
	if AllowOrigin(h, s, asked.Get("Origin")) {
		h.Set("Access-Control-Allow-Methods", named(s.Methods, "Access-Control-Request-Method"))
		h.Set("Access-Control-Allow-Headers", named(s.Headers, "Access-Control-Request-Headers"))
		h.Set("Access-Control-Max-Age", strconv.Itoa(s.MaxAge))
	}
	w.WriteHeader(http.StatusNoContent)
}

// AllowOrigin names the origin in an answer if it may see it.
func AllowOrigin(h http.Header, s *annotation.CORS, origin string) bool {
	all := slices.Contains(s.Origins, "*")
	if origin == "" && (!all || s.Named) {
		return false
	}
	if !all && !slices.ContainsFunc(s.Origins, func(o string) bool { return sameOrigin(o, origin) }) {
		return false
	}
	to := origin
	if all && !s.Named {
		to = "*"
	} else {
		h.Add("Vary", "Origin")
	}
	h.Set("Access-Control-Allow-Origin", to)
	if s.Credentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if s.Expose != "" {
		h.Set("Access-Control-Expose-Headers", s.Expose)
	}
	return true
}

// sameOrigin compares an origin with one that may have a wildcard label.
func sameOrigin(pattern, origin string) bool {
	before, after, ok := strings.Cut(pattern, "*")
	if !ok {
		return strings.EqualFold(pattern, origin)
	}
	return len(origin) > len(before)+len(after) && strings.HasPrefix(origin, before) && strings.HasSuffix(origin, after) &&
		!strings.ContainsAny(origin[len(before):len(origin)-len(after)], "/:")
}
