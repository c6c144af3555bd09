// SPDX-License-Identifier: Apache-2.0

package podrun

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/podspec"
)

// minGrace is what every container gets, so that it is never killed at once.
const minGrace = 2 * time.Second

// killing is one container on its way out.
type killing struct {
	id, name string
	spec     *corev1.Container
	message  string
	// probe is the kind of the probe that failed, which may shorten the grace.
	probe string
	// grace overrides all others; nil for none.
	grace *time.Duration
}

// Kill ends all containers of a pod, sidecars after the others and in reverse
// order, and then its sandboxes. grace overrides the pod's own.
func (r *Runner) Kill(ctx context.Context, pod *corev1.Pod, a *actual.Pod, grace *time.Duration) error {
	running := a.Running()
	turns := newTurns(pod, running)
	errs := make([]error, len(running))
	var all sync.WaitGroup
	for i, c := range running {
		all.Go(func() {
			defer turns.done(c.Name)
			errs[i] = r.killContainer(ctx, pod, killing{id: c.ID, name: c.Name, spec: podspec.Container(pod, c.Name), grace: grace}, turns)
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, s := range a.Sandboxes {
		if s.State != runtimeapi.PodSandboxState_SANDBOX_READY {
			continue
		}
		if _, err := r.cfg.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.Id}); err != nil && grpcstatus.Code(err) != codes.NotFound {
			return fmt.Errorf("stop sandbox %s: %w", s.Id, err)
		}
	}
	return nil
}

func (r *Runner) killContainer(ctx context.Context, pod *corev1.Pod, k killing, turns *turns) error {
	grace := graceOf(pod, k)
	message := k.message
	if message == "" {
		message = fmt.Sprintf("Stopping container %s", k.name)
	}
	r.event(pod, &corev1.Container{Name: k.name}, corev1.EventTypeNormal, "Killing", "%s", message)
	begun := time.Now()
	if k.spec != nil && k.spec.Lifecycle != nil && k.spec.Lifecycle.PreStop != nil && grace > 0 {
		r.preStop(ctx, pod, k, grace)
	}
	if turns != nil {
		turns.wait(ctx, k.name, remaining(grace, begun))
	}
	grace = max(remaining(grace, begun), minGrace)
	_, err := r.cfg.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: k.id, Timeout: int64((grace + time.Second - 1) / time.Second)})
	if err != nil && grpcstatus.Code(err) != codes.NotFound {
		return fmt.Errorf("stop container %s: %w", k.name, err)
	}
	return nil
}

func (r *Runner) preStop(ctx context.Context, pod *corev1.Pod, k killing, grace time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if err := r.hook(ctx, pod, k.spec, k.id, nil, k.spec.Lifecycle.PreStop); err != nil {
		r.event(pod, k.spec, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
	}
}

// graceOf is how long a container may take to end.
func graceOf(pod *corev1.Pod, k killing) time.Duration {
	if k.grace != nil {
		return *k.grace
	}
	if k.spec != nil && pod.DeletionGracePeriodSeconds == nil {
		probe := (*corev1.Probe)(nil)
		switch k.probe {
		case "Startup":
			probe = k.spec.StartupProbe
		case "Liveness":
			probe = k.spec.LivenessProbe
		}
		if probe != nil && probe.TerminationGracePeriodSeconds != nil {
			return time.Duration(*probe.TerminationGracePeriodSeconds) * time.Second
		}
	}
	return podspec.Grace(pod)
}

// turns lets containers end in order: a sidecar after all ordinary containers
// and after the sidecars behind it (KEP-753).
type turns struct {
	after map[string][]chan struct{}
	ended map[string]chan struct{}
	once  map[string]*sync.Once
}

func newTurns(pod *corev1.Pod, running []*actual.Container) *turns {
	t := &turns{after: map[string][]chan struct{}{}, ended: map[string]chan struct{}{}, once: map[string]*sync.Once{}}
	for _, c := range running {
		if t.ended[c.Name] == nil {
			t.ended[c.Name], t.once[c.Name] = make(chan struct{}), &sync.Once{}
		}
	}
	var before []chan struct{}
	for i := range pod.Spec.Containers {
		if ch := t.ended[pod.Spec.Containers[i].Name]; ch != nil {
			before = append(before, ch)
		}
	}
	for i := len(pod.Spec.InitContainers) - 1; i >= 0; i-- {
		c := &pod.Spec.InitContainers[i]
		ch := t.ended[c.Name]
		if ch == nil || !podspec.Sidecar(c) {
			continue
		}
		t.after[c.Name] = append([]chan struct{}(nil), before...)
		before = append(before, ch)
	}
	return t
}

func (t *turns) wait(ctx context.Context, name string, limit time.Duration) {
	if len(t.after[name]) == 0 || limit <= 0 {
		return
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for _, ch := range t.after[name] {
		select {
		case <-ch:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// done marks a name as ended; with several containers of one name the first
// that ends counts.
func (t *turns) done(name string) {
	t.once[name].Do(func() { close(t.ended[name]) })
}
