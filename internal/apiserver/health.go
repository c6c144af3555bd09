// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Check is one named part of /healthz, /livez and /readyz.
type Check struct {
	Name string
	// Check returns why the part is not healthy; it must be quick.
	Check func(*http.Request) error
	// ReadyOnly leaves the check out of /livez and /healthz; NotReady leaves
	// it out of /readyz.
	ReadyOnly, NotReady bool
}

// startHooks are upstream's names for what has to be done after the start.
// Monitoring asks for them by name; here they are all done with the bootstrap.
var startHooks = []string{
	"apiservice-discovery-controller", "apiservice-openapi-controller", "apiservice-openapiv3-controller",
	"apiservice-registration-controller", "apiservice-status-local-available-controller",
	"apiservice-status-remote-available-controller", "bootstrap-controller", "crd-informer-synced",
	"generic-apiserver-start-informers", "kube-apiserver-autoregistration", "peer-endpoint-reconciler-controller",
	"priority-and-fairness-config-consumer", "priority-and-fairness-config-producer", "priority-and-fairness-filter",
	"rbac/bootstrap-roles", "scheduling/bootstrap-system-priority-classes", "start-apiextensions-controllers",
	"start-apiextensions-informers", "start-apiserver-admission-initializer",
	"start-cluster-authentication-info-controller", "start-kube-aggregator-informers",
	"start-kube-apiserver-identity-lease-controller", "start-kube-apiserver-identity-lease-garbage-collector",
	"start-kubernetes-service-cidr-controller", "start-legacy-token-tracking-controller",
	"start-service-ip-repair-controllers", "start-system-namespaces-controller", "storage-object-count-tracker-hook",
	"storage-readiness",
}

// checks are all parts of the server's health, in the order of their names.
func (s *Server) checks() []Check {
	fine := func(*http.Request) error { return nil }
	until := func(done <-chan struct{}, why string) func(*http.Request) error {
		return func(*http.Request) error {
			select {
			case <-done:
				return nil
			default:
				return errors.New(why)
			}
		}
	}
	booted := until(s.booted, "not finished")
	all := []Check{
		{Name: "ping", Check: fine},
		{Name: "log", Check: fine},
		{Name: "etcd", Check: s.checkStore},
		{Name: "etcd-readiness", Check: s.checkStore, ReadyOnly: true},
		{Name: "informer-sync", Check: booted, ReadyOnly: true},
		{Name: "loopback-serving-certificate", Check: fine, NotReady: true},
		{Name: "autoregister-completion", Check: booted},
		{Name: "shutdown", ReadyOnly: true, Check: func(*http.Request) error {
			select {
			case <-s.stopping.Done():
				return errors.New("process is shutting down")
			default:
				return nil
			}
		}},
	}
	for _, name := range startHooks {
		all = append(all, Check{Name: "poststarthook/" + name, Check: booted})
	}
	all = append(all, s.cfg.Checks...)
	slices.SortStableFunc(all, func(a, b Check) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// checkStore says whether the store answers.
func (s *Server) checkStore(r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	_, err := s.cfg.Store.Revision(ctx)
	return err
}

// installHealth adds the paths of the checks to routes.
func (s *Server) installHealth(routes map[string]http.Handler) {
	all := s.checks()
	for _, path := range []string{"healthz", "livez", "readyz"} {
		var checks []Check
		for _, c := range all {
			if path == "readyz" && c.NotReady || path != "readyz" && c.ReadyOnly {
				continue
			}
			checks = append(checks, c)
			routes["/"+path+"/"+c.Name] = serveCheck(c)
		}
		routes["/"+path] = serveChecks(path, checks)
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
