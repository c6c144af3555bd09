// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"net/http"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// guard lets only requests through whose sender is known and may do what it
// asks for. Where several subresources of nodes would allow it, one is enough
// (KEP-2862).
func (s *server) guard(next http.Handler) http.Handler {
	if s.cfg.Authenticator == nil && s.cfg.Authorizer == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok, err := s.cfg.Authenticator.AuthenticateRequest(r)
		if err != nil || !ok {
			if err != nil {
				s.cfg.Logger.Warn("a request was not authenticated", "path", r.URL.Path, "err", err)
			}
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		verb := verbOf(r.Method)
		subresources := subresourcesOf(r.URL.Path)
		for _, sub := range subresources {
			decision, _, err := s.cfg.Authorizer.Authorize(r.Context(), attributes(who.User, verb, s.cfg.NodeName, sub, r.URL.Path))
			if err != nil {
				s.cfg.Logger.Warn("a request was not authorized", "user", who.User.GetName(), "path", r.URL.Path, "err", err)
				http.Error(w, fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=nodes, subresource=%s)", who.User.GetName(), verb, sub), http.StatusInternalServerError)
				return
			}
			if decision == authorizer.DecisionAllow {
				next.ServeHTTP(w, r)
				return
			}
		}
		http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=%v)\n", who.User.GetName(), verb, subresources), http.StatusForbidden)
	})
}

func attributes(who user.Info, verb, node, subresource, path string) authorizer.Attributes {
	return authorizer.AttributesRecord{User: who, Verb: verb, APIVersion: "v1", Resource: "nodes", Subresource: subresource, Name: node, ResourceRequest: true, Path: path}
}

func verbOf(method string) string {
	switch method {
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	}
	return "get"
}

// subresourcesOf are the subresources of nodes that allow a path, in the order
// in which they are asked for.
func subresourcesOf(path string) []string {
	under := func(prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }
	switch {
	case under("/stats"):
		return []string{"stats"}
	case under("/metrics"):
		return []string{"metrics"}
	case under("/logs"):
		return []string{"log"}
	case under("/checkpoint"):
		return []string{"checkpoint"}
	case under("/pods"), under("/runningpods"):
		return []string{"pods", "proxy"}
	case under("/healthz"):
		return []string{"healthz", "proxy"}
	case under("/configz"):
		return []string{"configz", "proxy"}
	case under("/flagz"):
		return []string{"configz"}
	case under("/statusz"):
		return []string{"statusz"}
	}
	return []string{"proxy"}
}
