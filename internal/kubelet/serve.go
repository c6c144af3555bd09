// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/server"
)

// served is a Kubelet as its server sees it.
type served Kubelet

var _ server.Host = (*served)(nil)

// Handler is the agent's HTTP interface, with the authentication and
// authorization of the Config. Run serves it where the Config has a listener.
func (k *Kubelet) Handler() http.Handler {
	c := k.handlerConfig()
	c.Authenticator, c.Authorizer, c.NoDebug, c.Profiling = k.cfg.Authenticator, k.cfg.Authorizer, k.cfg.NoDebugHandlers, k.cfg.Profiling
	c.Pages = k.cfg.Pages
	if !k.cfg.NoSystemLogs {
		c.LogDir, c.LogQuery = "/var/log", k.cfg.SystemLogQuery
	}
	if k.checkpoints != nil {
		c.Checkpoint = k.checkpoint
	}
	return k.meter.Counted("readwrite", server.New(c))
}

// checkpoint has the runtime save a running container in an archive, whose place it returns.
func (k *Kubelet) checkpoint(ctx context.Context, pod *corev1.Pod, container string, timeout int64) (string, error) {
	a, err := (*served)(k).Observe(ctx, pod)
	if err != nil {
		return "", err
	}
	c := a.Container(container)
	if c == nil {
		return "", fmt.Errorf("container %v not found", container)
	}
	dir := filepath.Join(k.cfg.RootDir, "checkpoints")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the directory of checkpoints: %w", err)
	}
	archive := filepath.Join(dir, fmt.Sprintf("checkpoint-%s_%s-%s-%s.tar", pod.Name, pod.Namespace, container, time.Now().Format(time.RFC3339)))
	_, err = k.checkpoints.CheckpointContainer(ctx, &runtimeapi.CheckpointContainerRequest{ContainerId: c.ID, Location: archive, Timeout: timeout})
	return archive, err
}

// ReadOnlyHandler shows everybody what the agent does, and reaches into nothing:
// what upstream's read-only port serves.
func (k *Kubelet) ReadOnlyHandler() http.Handler {
	c := k.handlerConfig()
	c.NoDebug = true
	return k.meter.Counted("readonly", server.New(c))
}

func (k *Kubelet) handlerConfig() server.Config {
	return server.Config{NodeName: k.cfg.NodeName, Host: (*served)(k), Logger: k.log,
		Metrics: k.meter.Handler(), CAdvisor: k.stats.CAdvisor(), Probes: k.meter.Probes(), Resource: k.stats.Resource()}
}

// serve answers on the listener until ctx ends.
func (k *Kubelet) serve(ctx context.Context, l net.Listener) error {
	s := &http.Server{Handler: k.Handler(), ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 90 * time.Second}
	stopped := context.AfterFunc(ctx, func() {
		// Streams may last for hours; they end with the agent.
		_ = s.Close()
	})
	defer stopped()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// withStatus shows a pod with the status that the agent knows last.
func (k *Kubelet) withStatus(pod *corev1.Pod) *corev1.Pod {
	s, ok := k.statuses.Get(pod.UID)
	if !ok {
		return pod
	}
	shown := *pod
	shown.Status = s
	return &shown
}

// Pods implements server.Host.
func (s *served) Pods() []*corev1.Pod {
	k := (*Kubelet)(s)
	pods := k.pool.Pods()
	for i := range pods {
		pods[i] = k.withStatus(pods[i])
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return pods
}

// Pod implements server.Host.
func (s *served) Pod(namespace, name string) *corev1.Pod {
	k := (*Kubelet)(s)
	var found *corev1.Pod
	for _, pod := range k.pool.Pods() {
		if pod.Namespace == namespace && pod.Name == name && (found == nil || found.CreationTimestamp.Before(&pod.CreationTimestamp)) {
			found = pod
		}
	}
	if found == nil {
		return nil
	}
	return k.withStatus(found)
}

// Observe implements server.Host.
func (s *served) Observe(ctx context.Context, pod *corev1.Pod) (*actual.Pod, error) {
	return actual.Observe(ctx, s.cfg.Runtime, pod.Namespace, pod.Name, pod.UID)
}

// RunningPods implements server.Host.
func (s *served) RunningPods(ctx context.Context) ([]*corev1.Pod, error) {
	keys, err := actual.List(ctx, s.cfg.Runtime)
	if err != nil {
		return nil, err
	}
	var pods []*corev1.Pod
	for _, key := range keys {
		a, err := actual.Observe(ctx, s.cfg.Runtime, key.Namespace, key.Name, key.UID)
		if err != nil {
			return nil, err
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, UID: key.UID}}
		for _, c := range a.Running() {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: c.Name, Image: c.ImageRef})
		}
		if len(pod.Spec.Containers) > 0 {
			pods = append(pods, pod)
		}
	}
	return pods, nil
}

// Exec implements server.Host.
func (s *served) Exec(ctx context.Context, id string, command []string, o server.StreamOptions) (*url.URL, error) {
	answer, err := s.cfg.Runtime.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: id, Cmd: command, Tty: o.TTY, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr})
	if err != nil {
		return nil, err
	}
	return url.Parse(answer.Url)
}

// Attach implements server.Host.
func (s *served) Attach(ctx context.Context, id string, o server.StreamOptions) (*url.URL, error) {
	answer, err := s.cfg.Runtime.Attach(ctx, &runtimeapi.AttachRequest{ContainerId: id, Tty: o.TTY, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr})
	if err != nil {
		return nil, err
	}
	return url.Parse(answer.Url)
}

// PortForward implements server.Host.
func (s *served) PortForward(ctx context.Context, id string, ports []int32) (*url.URL, error) {
	answer, err := s.cfg.Runtime.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: id, Port: ports})
	if err != nil {
		return nil, err
	}
	return url.Parse(answer.Url)
}

// Run implements server.Host.
func (s *served) Run(ctx context.Context, id string, command []string) ([]byte, error) {
	answer, err := s.cfg.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: command})
	if err != nil {
		return nil, err
	}
	out := append(answer.Stdout, answer.Stderr...)
	if answer.ExitCode != 0 {
		return nil, fmt.Errorf("command '%s' exited with %d: %s", command, answer.ExitCode, out)
	}
	return out, nil
}

// Summary implements server.Host.
func (s *served) Summary(ctx context.Context, only bool) (*statsapi.Summary, error) {
	return s.stats.Summary(ctx, only)
}

// Healthy implements server.Host.
func (s *served) Healthy() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.listing
}

// Settings implements server.Host.
func (s *served) Settings() any { return s.cfg.Settings }
