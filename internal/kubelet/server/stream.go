// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/proxy"

	"kaji/internal/kubelet/podspec"
)

func hasContainer(pod *corev1.Pod, name string) bool { return podspec.Container(pod, name) != nil }

// streams reads which streams a request wants.
func streams(r *http.Request) (StreamOptions, error) {
	q := r.URL.Query()
	one := func(names ...string) bool {
		for _, name := range names {
			if v := q.Get(name); v == "1" || v == "true" {
				return true
			}
		}
		return false
	}
	o := StreamOptions{Stdin: one("input", "stdin"), Stdout: one("output", "stdout"), Stderr: one("error", "stderr"), TTY: one("tty")}
	if o.TTY {
		o.Stderr = false // a terminal has one output
	}
	if !o.Stdin && !o.Stdout && !o.Stderr {
		return o, fmt.Errorf("you must specify at least 1 of stdin, stdout, stderr")
	}
	return o, nil
}

// command reads the command of a request.
func command(r *http.Request) []string { return r.URL.Query()["command"] }

func (s *server) exec(w http.ResponseWriter, r *http.Request) {
	o, err := streams(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, a, ok := s.target(w, r)
	if !ok {
		return
	}
	name := r.PathValue("container")
	c := a.Container(name)
	if !c.Running() {
		http.Error(w, fmt.Sprintf("container not found (%q)", name), http.StatusInternalServerError)
		return
	}
	at, err := s.cfg.Host.Exec(r.Context(), c.ID, command(r), o)
	s.proxy(w, r, at, err)
}

func (s *server) attach(w http.ResponseWriter, r *http.Request) {
	o, err := streams(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	pod, a, ok := s.target(w, r)
	if !ok {
		return
	}
	name := r.PathValue("container")
	c, spec := a.Container(name), podspec.Container(pod, name)
	if !c.Running() || spec == nil {
		http.Error(w, fmt.Sprintf("container %s not found in pod %s", name, podspec.FullName(pod)), http.StatusInternalServerError)
		return
	}
	o.TTY = spec.TTY // whether it has a terminal was decided at its start
	at, err := s.cfg.Host.Attach(r.Context(), c.ID, o)
	s.proxy(w, r, at, err)
}

func (s *server) portForward(w http.ResponseWriter, r *http.Request) {
	pod, a, ok := s.target(w, r)
	if !ok {
		return
	}
	if !a.Ready() {
		http.Error(w, fmt.Sprintf("pod not found (%q)", podspec.FullName(pod)), http.StatusInternalServerError)
		return
	}
	var ports []int32
	for _, text := range r.URL.Query()["port"] {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil || port == 0 {
			http.Error(w, fmt.Sprintf("invalid port %q", text), http.StatusBadRequest)
			return
		}
		ports = append(ports, int32(port))
	}
	at, err := s.cfg.Host.PortForward(r.Context(), a.Sandbox().Id, ports)
	s.proxy(w, r, at, err)
}

// proxy carries a stream between the caller and the runtime.
func (s *server) proxy(w http.ResponseWriter, r *http.Request, at *url.URL, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	handler := proxy.NewUpgradeAwareHandler(at, nil, false, true, responder{})
	handler.ServeHTTP(w, r)
}

type responder struct{}

// Error implements proxy.ErrorResponder.
func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

func (s *server) run(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(w, "405: Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	_, a, ok := s.target(w, r)
	if !ok {
		return
	}
	name := r.PathValue("container")
	c := a.Container(name)
	if !c.Running() {
		http.Error(w, fmt.Sprintf("container not found (%q)", name), http.StatusInternalServerError)
		return
	}
	q := r.URL.Query()
	cmd := q["command"]
	if single := q.Get("cmd"); single != "" && len(cmd) == 0 {
		cmd = splitWords(single)
	}
	out, err := s.cfg.Host.Run(r.Context(), c.ID, cmd)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(out) // a client that left is no concern
}
