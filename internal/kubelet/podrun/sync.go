// SPDX-License-Identifier: Apache-2.0

package podrun

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/actual"
)

// Result is what Sync did.
type Result struct {
	// Changed says that the runtime has something else than before.
	Changed bool
	// RetryAt is when to call again although nothing has happened; zero for
	// no such time.
	RetryAt time.Time
	// failed is why a container could not be started.
	failed error
}

func (r *Result) retry(at time.Time) {
	if r.RetryAt.IsZero() || at.Before(r.RetryAt) {
		r.RetryAt = at
	}
}

// errorRetry is how long a start that failed is left alone where nothing else
// says when to try again.
const errorRetry = 10 * time.Second

// Sync takes the steps that a pod is missing; with restart set, the first of
// them is to remove all its containers.
func (r *Runner) Sync(ctx context.Context, pod *corev1.Pod, a *actual.Pod, restart bool) (Result, error) {
	if restart {
		return r.restart(ctx, pod, Restart(pod, a))
	}
	plan := MakePlan(pod, a, r.cfg.Probes)
	var result Result
	if plan.Empty() {
		return result, nil
	}
	if plan.KillPod {
		result.Changed = true
		if plan.CreateSandbox && a.Sandbox() != nil {
			r.cfg.Recorder.Event(Reference(pod), corev1.EventTypeNormal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
		}
		if err := r.Kill(ctx, pod, a, nil); err != nil {
			return result, fmt.Errorf("kill pod: %w", err)
		}
	} else {
		for _, v := range plan.Kill {
			result.Changed = true
			name := v.Container.Name
			err := r.killContainer(ctx, pod, killing{id: v.Container.ID, name: name, spec: specNamed(pod, name), message: v.Message, probe: v.Probe}, nil)
			if err != nil {
				return result, fmt.Errorf("kill container %s: %w", name, err)
			}
		}
	}
	if len(plan.Start) == 0 && !plan.CreateSandbox {
		return result, r.update(ctx, pod, plan, &result)
	}
	err := r.begin(ctx, pod, a, plan, &result)
	if plan.CreateSandbox && pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers {
		r.counted("user_namespace", cmp.Or(err, result.failed))
	}
	return result, err
}

// begin starts what the plan starts, within a sandbox.
func (r *Runner) begin(ctx context.Context, pod *corev1.Pod, a *actual.Pod, plan *Plan, result *Result) error {
	s, err := r.ensureSandbox(ctx, pod, a, plan, result)
	if err != nil {
		return err
	}
	for _, c := range plan.Start {
		r.startOne(ctx, pod, c, a, s, result)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return r.update(ctx, pod, plan, result)
}

// restart removes the containers of a pod; their logs stay.
func (r *Runner) restart(ctx context.Context, pod *corev1.Pod, plan *Plan) (Result, error) {
	at := time.Duration(0)
	for _, c := range plan.Remove {
		if c.Running() {
			k := killing{id: c.ID, name: c.Name, spec: specNamed(pod, c.Name), message: "killing", grace: &at}
			if err := r.killContainer(ctx, pod, k, nil); err != nil {
				return Result{}, fmt.Errorf("kill container %s: %w", c.Name, err)
			}
		}
		if err := r.removeContainer(ctx, pod.Name, pod.Namespace, c); err != nil {
			return Result{}, err
		}
		r.wait(pod.UID, c.Name, nil)
	}
	return Result{Changed: len(plan.Remove) > 0}, nil
}

func specNamed(pod *corev1.Pod, name string) *corev1.Container {
	for _, c := range podContainers(pod) {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func (r *Runner) startOne(ctx context.Context, pod *corev1.Pod, c *corev1.Container, a *actual.Pod, s sandbox, result *Result) {
	err := error(nil)
	if failure := r.backOff(pod, c, a); failure != nil {
		err = failure
	} else {
		err = r.start(ctx, pod, c, a, s)
	}
	if err != nil {
		result.failed = err
	}
	var failure *Failure
	switch {
	case err == nil:
		result.Changed = true
		r.wait(pod.UID, c.Name, nil)
	case errors.As(err, &failure):
		r.wait(pod.UID, c.Name, failure)
		at := failure.RetryAt
		if at.IsZero() {
			at = time.Now().Add(errorRetry)
		}
		result.retry(at)
	case ctx.Err() != nil: // the pod is being ended; nothing is wrong with the container
	default:
		r.wait(pod.UID, c.Name, &Failure{Reason: "CreateContainerError", Message: err.Error()})
		result.retry(time.Now().Add(errorRetry))
	}
}

// ensureSandbox makes the sandbox where the plan says so and describes it.
func (r *Runner) ensureSandbox(ctx context.Context, pod *corev1.Pod, a *actual.Pod, plan *Plan, result *Result) (sandbox, error) {
	ref := Reference(pod)
	config, err := r.sandboxConfig(pod, plan.Attempt)
	if err != nil {
		r.cfg.Recorder.Eventf(ref, corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: %v", err)
		return sandbox{}, fmt.Errorf("describe sandbox: %w", err)
	}
	handler, err := r.cfg.Host.RuntimeHandler(pod)
	if err != nil {
		r.cfg.Recorder.Eventf(ref, corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: %v", err)
		return sandbox{}, fmt.Errorf("runtime class: %w", err)
	}
	s := sandbox{id: plan.SandboxID, handler: handler, config: config, ips: a.IPs()}
	if !plan.CreateSandbox {
		return s, nil
	}
	result.Changed = true
	if s.id, err = r.runSandbox(ctx, pod, config, handler); err != nil {
		if ctx.Err() == nil {
			r.cfg.Recorder.Event(ref, corev1.EventTypeWarning, "FailedCreatePodSandBox", err.Error())
		}
		return s, err
	}
	answer, err := r.cfg.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: s.id})
	if err != nil {
		r.cfg.Recorder.Eventf(ref, corev1.EventTypeWarning, "FailedStatusPodSandBox", "Unable to get pod sandbox status: %v", err)
		return s, fmt.Errorf("status of the new sandbox: %w", err)
	}
	s.ips = (&actual.Pod{Sandboxes: []*runtimeapi.PodSandboxStatus{answer.Status}}).IPs()
	if pod.Spec.HostNetwork {
		s.ips = nil
	}
	return s, nil
}

// update applies resources that changed to running containers.
func (r *Runner) update(ctx context.Context, pod *corev1.Pod, plan *Plan, result *Result) error {
	for _, seen := range plan.Update {
		spec := specNamed(pod, seen.Name)
		if spec == nil {
			continue
		}
		result.Changed = true
		linux := r.resources(pod, spec)
		linux.CpusetCpus, linux.CpusetMems = seen.Resources.GetCpusetCpus(), seen.Resources.GetCpusetMems()
		if linux.CpuQuota == 0 {
			linux.CpuQuota = -1 // zero would keep the former limit
		}
		if linux.MemoryLimitInBytes == 0 {
			linux.MemoryLimitInBytes = -1
		}
		if _, err := r.cfg.Runtime.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: seen.ID, Linux: linux}); err != nil {
			return fmt.Errorf("update resources of container %s: %w", seen.Name, err)
		}
	}
	return nil
}
