// SPDX-License-Identifier: Apache-2.0

// Package server is the node agent's HTTP interface on port 10250: logs,
// commands in containers, port forwarding, statistics and health. The API
// server is its main caller, monitoring the other. Every request is
// authenticated and authorized as upstream's kubelet does it (auth.go). What it
// shows comes from a Host; it changes nothing itself.
package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"kaji/internal/kubelet/actual"
)

// Host is the node agent as its server sees it.
type Host interface {
	// Pods are those the node is to run, with their newest status.
	Pods() []*corev1.Pod
	// Pod finds one; nil where there is none.
	Pod(namespace, name string) *corev1.Pod
	// Observe reads a pod from the runtime.
	Observe(ctx context.Context, pod *corev1.Pod) (*actual.Pod, error)
	// RunningPods are those that the runtime has.
	RunningPods(ctx context.Context) ([]*corev1.Pod, error)
	// Exec, Attach and PortForward return where the runtime streams.
	Exec(ctx context.Context, containerID string, command []string, o StreamOptions) (*url.URL, error)
	Attach(ctx context.Context, containerID string, o StreamOptions) (*url.URL, error)
	PortForward(ctx context.Context, sandboxID string, ports []int32) (*url.URL, error)
	// Run executes a command and returns its output.
	Run(ctx context.Context, containerID string, command []string) ([]byte, error)
	// Summary is the node's use of resources.
	Summary(ctx context.Context, cpuAndMemoryOnly bool) (*statsapi.Summary, error)
	// Healthy is nil while the agent works.
	Healthy() error
	// Settings are the configuration that /configz shows.
	Settings() any
}

// StreamOptions say which streams a command has.
type StreamOptions struct{ Stdin, Stdout, Stderr, TTY bool }

// Config is what a handler is made of.
type Config struct {
	NodeName string
	Host     Host
	// Authenticator and Authorizer are asked about every request; both nil
	// means that anybody may do anything, for tests and sockets that are safe.
	Authenticator authenticator.Request
	Authorizer    authorizer.UnconditionalAuthorizer
	Logger        *slog.Logger
	// Metrics, CAdvisor, Probes and Resource serve metrics; nil ones are absent.
	Metrics, CAdvisor, Probes, Resource http.Handler
	// Pages are what others serve here, by their paths.
	Pages map[string]http.Handler
	// LogDir is what /logs/ shows; "" for nothing.
	LogDir string
	// LogQuery lets /logs/?query= ask for the logs of services.
	LogQuery bool
	// NoDebug leaves out everything that reaches into containers.
	NoDebug bool
	// Profiling serves /debug/pprof.
	Profiling bool
	// Checkpoint saves a running container; nil where that cannot be done.
	// A timeout is in seconds, zero for none.
	Checkpoint func(ctx context.Context, pod *corev1.Pod, container string, timeout int64) (archive string, err error)
}

type server struct{ cfg Config }

// New returns the handler.
func New(cfg Config) http.Handler {
	s := &server{cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", s.health)
	mux.HandleFunc("/healthz/ping", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	mux.HandleFunc("/healthz/log", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	mux.HandleFunc("/healthz/syncloop", s.health)
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /pods/{$}", s.pods)
	mux.HandleFunc("GET /stats/summary", s.summary)
	mux.HandleFunc("POST /stats/summary", s.summary)
	for path, h := range map[string]http.Handler{"/metrics": cfg.Metrics, "/metrics/cadvisor": cfg.CAdvisor, "/metrics/probes": cfg.Probes, "/metrics/resource": cfg.Resource} {
		if h != nil {
			mux.Handle("GET "+path, h)
		}
	}
	for path, h := range cfg.Pages {
		mux.Handle("GET "+path, h)
	}
	mux.HandleFunc("GET /configz", s.configz)
	mux.HandleFunc("POST /checkpoint/{namespace}/{pod}/{container}", s.checkpoint)
	if !cfg.NoDebug {
		s.debug(mux)
	}
	return s.guard(mux)
}

// debug adds what reaches into containers.
func (s *server) debug(mux *http.ServeMux) {
	mux.HandleFunc("GET /runningpods/", s.runningPods)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	for path, h := range map[string]http.HandlerFunc{"exec": s.exec, "attach": s.attach, "run": s.run} {
		mux.HandleFunc("/"+path+"/{namespace}/{pod}/{container}", h)
		mux.HandleFunc("/"+path+"/{namespace}/{pod}/{uid}/{container}", h)
	}
	mux.HandleFunc("/portForward/{namespace}/{pod}", s.portForward)
	mux.HandleFunc("/portForward/{namespace}/{pod}/{uid}", s.portForward)
	if s.cfg.LogDir != "" {
		mux.Handle("GET /logs/", http.StripPrefix("/logs/", &systemLogs{dir: s.cfg.LogDir, files: http.FileServer(http.Dir(s.cfg.LogDir)), query: s.cfg.LogQuery}))
	}
	if s.cfg.Profiling {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
}

func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	if err := s.cfg.Host.Healthy(); err != nil {
		http.Error(w, "[-]syncloop failed: "+err.Error()+"\nhealthz check failed", http.StatusInternalServerError)
		return
	}
	fmt.Fprint(w, "ok")
}

func (s *server) answer(w http.ResponseWriter, what any) {
	data, err := json.Marshal(what)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data) // a client that left is no concern
}

func podList(pods []*corev1.Pod) *corev1.PodList {
	list := &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
	for _, p := range pods {
		list.Items = append(list.Items, *p)
	}
	return list
}

func (s *server) pods(w http.ResponseWriter, _ *http.Request) {
	s.answer(w, podList(s.cfg.Host.Pods()))
}

func (s *server) runningPods(w http.ResponseWriter, r *http.Request) {
	pods, err := s.cfg.Host.RunningPods(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.answer(w, podList(pods))
}

func (s *server) summary(w http.ResponseWriter, r *http.Request) {
	only := r.URL.Query().Get("only_cpu_and_memory") == "true"
	summary, err := s.cfg.Host.Summary(r.Context(), only)
	if err != nil {
		http.Error(w, "Internal Error: "+err.Error(), http.StatusInternalServerError)
		return
	}
	s.answer(w, summary)
}

func (s *server) configz(w http.ResponseWriter, _ *http.Request) {
	s.answer(w, map[string]any{"kubeletconfig": s.cfg.Host.Settings()})
}

// target finds the pod and the running container that a request names.
func (s *server) target(w http.ResponseWriter, r *http.Request) (*corev1.Pod, *actual.Pod, bool) {
	namespace, name := r.PathValue("namespace"), r.PathValue("pod")
	pod := s.cfg.Host.Pod(namespace, name)
	if pod == nil || r.PathValue("uid") != "" && types.UID(r.PathValue("uid")) != pod.UID {
		http.Error(w, "pod does not exist", http.StatusNotFound)
		return nil, nil, false
	}
	a, err := s.cfg.Host.Observe(r.Context(), pod)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return nil, nil, false
	}
	return pod, a, true
}

func (s *server) checkpoint(w http.ResponseWriter, r *http.Request) {
	pod := s.cfg.Host.Pod(r.PathValue("namespace"), r.PathValue("pod"))
	container := r.PathValue("container")
	switch {
	case pod == nil:
		http.Error(w, "pod does not exist", http.StatusNotFound)
	case !hasContainer(pod, container):
		http.Error(w, fmt.Sprintf("container %v does not exist", container), http.StatusNotFound)
	case s.cfg.Checkpoint == nil:
		http.Error(w, fmt.Sprintf("checkpointing of %v/%v/%v failed (the container runtime cannot checkpoint)", pod.Namespace, pod.Name, container), http.StatusNotFound)
	default:
		timeout := int64(0)
		if all := r.URL.Query()["timeout"]; len(all) > 0 {
			var err error
			if timeout, err = strconv.ParseInt(all[len(all)-1], 10, 64); err != nil {
				http.Error(w, "cannot parse value of timeout parameter", http.StatusNotFound)
				return
			}
		}
		archive, err := s.cfg.Checkpoint(r.Context(), pod, container, timeout)
		if err != nil {
			http.Error(w, fmt.Sprintf("checkpointing of %v/%v/%v failed (%v)", pod.Namespace, pod.Name, container, err), http.StatusInternalServerError)
			return
		}
		s.answer(w, map[string][]string{"items": {archive}})
	}
}
