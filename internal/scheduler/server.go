// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/utils/ptr"
)

// Handler serves what upstream serves at port 10259: /metrics, /healthz,
// /livez, /readyz, /configz and, unless the configuration says otherwise,
// /debug/pprof. Whoever listens sees to TLS and to who may read it.
func (s *Scheduler) Handler() http.Handler {
	mux := http.NewServeMux()
	ok := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }
	mux.HandleFunc("/healthz", ok)
	mux.HandleFunc("/livez", ok)
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-s.ready:
			ok(w, r)
		default:
			// An instance that waits for its turn to lead is ready as well.
			if s.standby() {
				ok(w, r)
				return
			}
			http.Error(w, "[-]sched-handler-sync failed: not finished\nreadyz check failed", http.StatusInternalServerError)
		}
	})
	scrape := promhttp.HandlerFor(s.served, promhttp.HandlerOpts{})
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, r *http.Request) {
		s.measure(r.Context())
		scrape.ServeHTTP(w, r)
	})
	mux.Handle("/metrics/resources", http.NotFoundHandler())
	mux.HandleFunc("/configz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// A failure is the reader's: the connection is gone.
		_ = json.NewEncoder(w).Encode(map[string]any{"componentconfig": s.cfg})
	})
	if ptr.Deref(s.cfg.EnableProfiling, true) {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}
