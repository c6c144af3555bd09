// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"net/http"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/verb"
)

// routes sends requests for resources to the verbs and others to what serves
// their path.
func (s *Server) routes() http.Handler {
	exact := map[string]http.Handler{
		"/version": http.HandlerFunc(serveVersion),
	}
	var prefixes []string
	s.health.install(exact)
	for path, h := range s.cfg.Routes {
		exact[path] = h
	}
	for path := range exact {
		if strings.HasSuffix(path, "/") && path != "/" {
			prefixes = append(prefixes, path)
		}
	}
	slices.SortFunc(prefixes, func(a, b string) int { return len(b) - len(a) })
	if exact["/"] == nil {
		exact["/"] = servePaths(exact)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := request.From(r.Context())
		if in.IsResourceRequest {
			switch {
			case in.Served != nil:
				s.verbs.ServeHTTP(w, r)
				return
			case s.cfg.Delegate != nil:
				s.cfg.Delegate.ServeHTTP(w, r)
				return
			}
		}
		if h := exact[r.URL.Path]; h != nil {
			h.ServeHTTP(w, r)
			return
		}
		for _, prefix := range prefixes {
			if strings.HasPrefix(r.URL.Path, prefix) {
				exact[prefix].ServeHTTP(w, r)
				return
			}
		}
		if s.cfg.Delegate != nil {
			s.cfg.Delegate.ServeHTTP(w, r)
			return
		}
		verb.NotFound(w, r)
	})
}

// servePaths lists what is served, as the root of the server does.
func servePaths(routes map[string]http.Handler) http.Handler {
	paths := make([]string, 0, len(routes))
	for path := range routes {
		if path != "/" {
			paths = append(paths, strings.TrimSuffix(path, "/"))
		}
	}
	slices.Sort(paths)
	paths = slices.Compact(paths)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, metav1.RootPaths{Paths: paths})
	})
}
