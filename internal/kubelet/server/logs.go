// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/kubelet/logs"
)

func splitWords(s string) []string { return strings.Split(s, " ") }

// logOptions reads the options of a request as the API's PodLogOptions has them.
func logOptions(q url.Values) (*corev1.PodLogOptions, error) {
	o := &corev1.PodLogOptions{}
	for name, to := range map[string]*bool{"follow": &o.Follow, "previous": &o.Previous, "timestamps": &o.Timestamps} {
		switch v := strings.ToLower(q.Get(name)); {
		case !q.Has(name) || v == "false" || v == "0":
		default:
			*to = true
		}
	}
	for name, to := range map[string]**int64{"sinceSeconds": &o.SinceSeconds, "tailLines": &o.TailLines, "limitBytes": &o.LimitBytes} {
		if !q.Has(name) || name == "tailLines" && q.Get(name) == "all" {
			continue
		}
		n, err := strconv.ParseInt(q.Get(name), 10, 64)
		if err != nil || n < 0 || n == 0 && name != "tailLines" {
			return nil, fmt.Errorf("invalid %s", name)
		}
		*to = &n
	}
	if text := q.Get("sinceTime"); text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, fmt.Errorf("invalid sinceTime")
		}
		since := metav1.NewTime(at)
		o.SinceTime = &since
	}
	if stream := q.Get("stream"); stream != "" {
		if stream != corev1.LogStreamAll && stream != corev1.LogStreamStdout && stream != corev1.LogStreamStderr {
			return nil, fmt.Errorf("invalid stream")
		}
		o.Stream = &stream
	}
	if o.SinceSeconds != nil && o.SinceTime != nil {
		return nil, fmt.Errorf("at most one of `sinceTime` or `sinceSeconds` may be specified")
	}
	return o, nil
}

func (s *server) logs(w http.ResponseWriter, r *http.Request) {
	o, err := logOptions(r.URL.Query())
	if err != nil {
		http.Error(w, `{"message": "Invalid request."}`, http.StatusUnprocessableEntity)
		return
	}
	name := r.PathValue("container")
	pod := s.cfg.Host.Pod(r.PathValue("namespace"), r.PathValue("pod"))
	if pod == nil {
		http.Error(w, fmt.Sprintf("pod %q does not exist\n", r.PathValue("pod")), http.StatusNotFound)
		return
	}
	if !hasContainer(pod, name) {
		http.Error(w, fmt.Sprintf("container %q not found in pod %q\n", name, pod.Name), http.StatusNotFound)
		return
	}
	id, err := logOf(pod, name, o.Previous)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a, err := s.cfg.Host.Observe(r.Context(), pod)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	c := a.ByID(id)
	if c == nil {
		http.Error(w, fmt.Sprintf("unable to retrieve container logs for %s", id), http.StatusBadRequest)
		return
	}
	out := &flusher{w: w, each: o.Follow}
	if o.Follow {
		out.begin() // whoever follows wants to know that it works before there is a line
		_, _ = out.Write(nil)
	}
	options := logs.From(o, time.Now())
	options.Running = func(ctx context.Context) bool { return s.running(ctx, pod, c.ID) }
	if err := logs.Read(r.Context(), c.LogPath, options, out, out); err != nil && !out.begun {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	out.begin()
}

func (s *server) running(ctx context.Context, pod *corev1.Pod, id string) bool {
	a, err := s.cfg.Host.Observe(ctx, pod)
	if err != nil {
		return ctx.Err() == nil // the runtime may come back
	}
	return a.ByID(id).Running()
}

// flusher sends each write of a followed log at once.
type flusher struct {
	w     http.ResponseWriter
	each  bool
	begun bool
}

func (f *flusher) begin() {
	if !f.begun {
		f.begun = true
		f.w.Header().Set("Content-Type", "text/plain")
		f.w.WriteHeader(http.StatusOK)
	}
}

// Write implements io.Writer.
func (f *flusher) Write(b []byte) (int, error) {
	f.begin()
	n, err := f.w.Write(b)
	if fl, ok := f.w.(http.Flusher); ok && f.each {
		fl.Flush()
	}
	return n, err
}

// logOf chooses the run of a container whose log is asked for, by the pod's
// status, with upstream's words for those that have none.
func logOf(pod *corev1.Pod, name string, previous bool) (id string, err error) {
	var s *corev1.ContainerStatus
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				s = &list[i]
			}
		}
	}
	if s == nil {
		return "", fmt.Errorf("container %q in pod %q is not available", name, pod.Name)
	}
	last := s.LastTerminationState.Terminated
	full := ""
	switch {
	case previous && (last == nil || last.ContainerID == ""):
		return "", fmt.Errorf("previous terminated container %q in pod %q not found", name, pod.Name)
	case previous:
		full = last.ContainerID
	case s.State.Running != nil:
		full = s.ContainerID
	case s.State.Terminated != nil && s.State.Terminated.ContainerID != "":
		full = s.State.Terminated.ContainerID
	case s.State.Terminated != nil && last != nil && last.ContainerID != "":
		full = last.ContainerID
	case s.State.Terminated != nil:
		return "", fmt.Errorf("container %q in pod %q is terminated", name, pod.Name)
	case last != nil && last.ContainerID != "":
		full = last.ContainerID
	case s.State.Waiting != nil && s.State.Waiting.Reason == "ErrImagePull":
		return "", fmt.Errorf("container %q in pod %q is waiting to start: image can't be pulled", name, pod.Name)
	case s.State.Waiting != nil && s.State.Waiting.Reason == "ImagePullBackOff":
		return "", fmt.Errorf("container %q in pod %q is waiting to start: trying and failing to pull image", name, pod.Name)
	case s.State.Waiting != nil:
		return "", fmt.Errorf("container %q in pod %q is waiting to start: %v", name, pod.Name, s.State.Waiting.Reason)
	default:
		return "", fmt.Errorf("container %q in pod %q is waiting to start - no logs yet", name, pod.Name)
	}
	_, id, ok := strings.Cut(full, "://")
	if !ok {
		id = full
	}
	return id, nil
}
