// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/pprof"
	"runtime"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/apiserver/metrics"
	"kaji/internal/apiserver/verb"
	"kaji/internal/store"
)

// installDebug adds what operators look at: metrics, profiles, flags, status.
func (s *Server) installDebug(routes map[string]http.Handler) {
	routes["/metrics"] = s.metrics
	routes["/metrics/slis"] = s.metrics
	routes["/statusz"] = text(s.statusz)
	routes["/flagz"] = text(s.flagz)
	if s.cfg.Profiling {
		routes["/debug/pprof/"] = http.HandlerFunc(pprof.Index)
		routes["/debug/pprof/profile"] = http.HandlerFunc(pprof.Profile)
		routes["/debug/pprof/symbol"] = http.HandlerFunc(pprof.Symbol)
		routes["/debug/pprof/trace"] = http.HandlerFunc(pprof.Trace)
	}
}

const notParseable = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n\n"

// text serves a page of plain text to whoever accepts that.
func text(page func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accept := r.Header.Get("Accept")
		if accept != "" && !strings.Contains(accept, "text/plain") && !strings.Contains(accept, "text/*") && !strings.Contains(accept, "*/*") {
			verb.Fail(w, r, &apierrors.StatusError{ErrStatus: metav1.Status{
				Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
				Message: "only the following media types are accepted: text/plain",
			}})
			return
		}
		plain(w)
		fmt.Fprint(w, page())
	})
}

func (s *Server) statusz() string {
	v := Version()
	up := time.Since(s.started)
	return fmt.Sprintf("\nkube-apiserver statusz\n%sStarted: %s\nUp: %d hr %02d min %02d sec\nGo version: %s\nBinary version: %s\nEmulation version: %s.%s\n",
		notParseable, s.started.Format(time.UnixDate), int(up.Hours()), int(up.Minutes())%60, int(up.Seconds())%60,
		runtime.Version(), strings.TrimPrefix(v.GitVersion, "v"), v.EmulationMajor, v.EmulationMinor)
}

func (s *Server) flagz() string {
	var b strings.Builder
	b.WriteString("\nkube-apiserver flagz\n" + notParseable)
	for _, name := range slices.Sorted(maps.Keys(s.cfg.Flags)) {
		fmt.Fprintf(&b, "%s=%s\n", name, s.cfg.Flags[name])
	}
	return b.String()
}

// sizes are what the metrics tell of the store.
func (s *Server) sizes(ctx context.Context) (int64, map[metrics.Resource]int) {
	objects := map[metrics.Resource]int{}
	for _, kind := range s.kinds.All() {
		if kind.Prefix == "" {
			continue
		}
		start := kind.Prefix + "/"
		res, err := s.cfg.Store.Range(ctx, store.Range{Start: start, End: store.PrefixEnd(start), CountOnly: true})
		if err != nil {
			objects[metrics.Resource{Group: kind.Group, Resource: kind.Resource}] = -1
			continue
		}
		objects[metrics.Resource{Group: kind.Group, Resource: kind.Resource}] = int(res.Count)
	}
	size, err := s.cfg.Store.Size(ctx)
	if err != nil {
		size = -1
	}
	return size, objects
}
