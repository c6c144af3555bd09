// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/api"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/verb"
)

// routes sends requests for resources to the verbs and others to what serves
// their path.
func (s *Server) routes() http.Handler {
	exact := map[string]http.Handler{
		"/version":    getOnly(http.HandlerFunc(serveVersion)),
		"/version/":   getOnly(http.HandlerFunc(serveVersion)),
		"/openapi/v2": s.openapi,
		"/openapi/v3": s.openapi,
	}
	s.installHealth(exact)
	s.installDebug(exact)
	maps.Copy(exact, s.cfg.Routes)
	exact["/openapi/v3/"] = s.openapi
	var prefixes []string
	for path := range exact {
		if strings.HasSuffix(path, "/") && path != "/" {
			prefixes = append(prefixes, path)
		}
	}
	slices.SortFunc(prefixes, func(a, b string) int { return len(b) - len(a) })
	if exact["/"] == nil {
		exact["/"] = s.servePaths(slices.Collect(maps.Keys(exact)))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if in := request.From(r.Context()); in.IsResourceRequest && in.Served != nil && !s.takenOver(r) {
			s.verbs.ServeHTTP(w, r)
			return
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
		s.serveOther(w, r)
	})
}

// takenOver says whether an APIService gave a version that is served here to
// another server.
func (s *Server) takenOver(r *http.Request) bool {
	return s.aggregate != nil && s.aggregate.Serves(r)
}

// serveOther answers discovery, and what is not found here.
func (s *Server) serveOther(w http.ResponseWriter, r *http.Request) {
	found, err := s.discovery.Serve(w, r)
	switch {
	case err != nil:
		verb.Fail(w, r, err)
	case found:
	case s.aggregate != nil && s.aggregate.Serves(r):
		s.aggregate.ServeHTTP(w, r)
	case s.cfg.Delegate != nil:
		s.cfg.Delegate.ServeHTTP(w, r)
	default:
		s.notFound(w, r)
	}
}

// notFound answers a path that leads nowhere: below a built-in group
// with a Status, elsewhere in plain text.
func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	rest, grouped := strings.CutPrefix(r.URL.Path, "/apis/")
	group, _, below := strings.Cut(rest, "/")
	builtIn := func(k *api.Kind) bool {
		return !k.Custom && slices.ContainsFunc(k.Versions, func(v api.Version) bool { return v.GroupVersion.Group == group })
	}
	if grouped && below && slices.ContainsFunc(s.kinds.All(), builtIn) || strings.HasPrefix(r.URL.Path, "/api/") {
		verb.Fail(w, r, verb.ErrNotFound())
		return
	}
	http.Error(w, "404 page not found", http.StatusNotFound)
}

// getOnly refuses every method but GET and every form but JSON.
func getOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			verb.Fail(w, r, verb.ErrMethodNotAllowed())
			return
		}
		if accept := r.Header.Get("Accept"); accept != "" && !codec.Names(accept, codec.JSON) {
			verb.Fail(w, r, &apierrors.StatusError{ErrStatus: metav1.Status{
				Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
				Message: "406: Not Acceptable\n\nAvailable representations: application/json",
				Details: &metav1.StatusDetails{},
			}})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// address is where discovery tells clients that the server is.
func (s *Server) address(r *http.Request) string {
	if s.cfg.ExternalAddress != "" {
		return s.cfg.ExternalAddress
	}
	return r.Host
}

// servePaths lists what is served, as the root of the server does.
func (s *Server) servePaths(fixed []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		paths := append(s.discovery.Paths(), "/apis/")
		for _, path := range fixed {
			if path == "/" || path == "/version/" || strings.HasPrefix(path, "/debug/") {
				continue
			}
			paths = append(paths, path)
		}
		slices.Sort(paths)
		writeJSON(w, http.StatusOK, metav1.RootPaths{Paths: slices.Compact(paths)})
	})
}
