// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"net/http"
	"strings"
)

// Check is one named part of /healthz, /livez and /readyz.
type Check struct {
	Name string
	// Check returns why the part is not healthy; it must be quick.
	Check func(*http.Request) error
	// ReadyOnly leaves the check out of /livez and /healthz.
	ReadyOnly bool
}

// health serves the three paths and one below them for each check.
type health struct {
	checks   []Check
	stopping <-chan struct{}
}

func newHealth(checks []Check, stopping <-chan struct{}) *health {
	ping := Check{Name: "ping", Check: func(*http.Request) error { return nil }}
	return &health{checks: append([]Check{ping}, checks...), stopping: stopping}
}

func (h *health) install(routes map[string]http.Handler) {
	shutdown := Check{Name: "shutdown", ReadyOnly: true, Check: func(*http.Request) error {
		select {
		case <-h.stopping:
			return fmt.Errorf("process is shutting down")
		default:
			return nil
		}
	}}
	for _, path := range []string{"healthz", "livez", "readyz"} {
		var checks []Check
		for _, c := range append(h.checks, shutdown) {
			if path == "readyz" || !c.ReadyOnly {
				checks = append(checks, c)
			}
		}
		routes["/"+path] = serveChecks(path, checks)
		for _, c := range checks {
			routes["/"+path+"/"+c.Name] = serveCheck(c)
		}
	}
}

func serveCheck(c Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.Check(r); err != nil {
			http.Error(w, fmt.Sprintf("internal server error: %v", err), http.StatusInternalServerError)
			return
		}
		plain(w)
		fmt.Fprint(w, "ok")
	})
}

func plain(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}

func serveChecks(path string, checks []Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		excluded := map[string]bool{}
		for _, name := range query["exclude"] {
			excluded[name] = true
		}
		var out strings.Builder
		failed := false
		for _, c := range checks {
			if excluded[c.Name] {
				delete(excluded, c.Name)
				fmt.Fprintf(&out, "[+]%s excluded: ok\n", c.Name)
				continue
			}
			if err := c.Check(r); err != nil {
				fmt.Fprintf(&out, "[-]%s failed: reason withheld\n", c.Name)
				failed = true
				continue
			}
			fmt.Fprintf(&out, "[+]%s ok\n", c.Name)
		}
		if len(excluded) > 0 {
			var names []string
			for _, name := range query["exclude"] {
				if excluded[name] {
					names = append(names, fmt.Sprintf("%q", name))
				}
			}
			fmt.Fprintf(&out, "warn: some health checks cannot be excluded: no matches for %s\n", strings.Join(names, ", "))
		}
		if failed {
			http.Error(w, fmt.Sprintf("%s%s check failed", out.String(), path), http.StatusInternalServerError)
			return
		}
		plain(w)
		if _, verbose := query["verbose"]; !verbose {
			fmt.Fprint(w, "ok")
			return
		}
		fmt.Fprintf(w, "%s%s check passed\n", out.String(), path)
	})
}
