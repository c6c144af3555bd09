// SPDX-License-Identifier: Apache-2.0

package podrun

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/podspec"
	"kaji/internal/kubelet/status"
)

// Plan is what is missing between a pod's specification and the runtime.
type Plan struct {
	// KillPod ends all containers and the sandbox before anything else.
	KillPod bool
	// CreateSandbox makes a new sandbox with the attempt number; otherwise
	// SandboxID is the one in use.
	CreateSandbox bool
	Attempt       uint32
	SandboxID     string
	Kill          []Victim
	// Remove are all containers, running or not, in order: the pod restarts where
	// it is.
	Remove []*actual.Container
	// Start are init, sidecar, ordinary and ephemeral containers, in order.
	Start []*corev1.Container
	// Update are running containers whose resources changed in place.
	Update []*actual.Container
}

// Victim is a container that is to be ended.
type Victim struct {
	Container *actual.Container
	// Message is that of the event, Probe the kind of the probe that failed.
	Message, Probe string
}

// Empty says that there is nothing to do.
func (p *Plan) Empty() bool {
	return !p.KillPod && !p.CreateSandbox && len(p.Kill) == 0 && len(p.Remove) == 0 && len(p.Start) == 0 && len(p.Update) == 0
}

// MakePlan compares; it changes nothing.
func MakePlan(pod *corev1.Pod, a *actual.Pod, probes Probes) *Plan {
	p := &Plan{}
	p.sandbox(pod, a)
	if p.CreateSandbox {
		p.fresh(pod, a)
		return p
	}
	for i := range pod.Spec.EphemeralContainers {
		c := podspec.Ephemeral(&pod.Spec.EphemeralContainers[i])
		if a.Container(c.Name) == nil {
			p.Start = append(p.Start, c)
		}
	}
	if p.init(pod, a, probes) && !p.KillPod {
		p.regular(pod, a, probes)
	}
	return p
}

// Restart plans the removal of all containers of a pod, those last whose end
// asks for it: while one of them is left, the restart goes on after a crash.
func Restart(pod *corev1.Pod, a *actual.Pod) *Plan {
	p := &Plan{}
	var last []*actual.Container
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			for _, c := range a.Containers {
				switch {
				case c.Name != list[i].Name:
				case c.Exited() && podspec.RestartsAll(&list[i], c.ExitCode):
					last = append(last, c)
				default:
					p.Remove = append(p.Remove, c)
				}
			}
		}
	}
	p.Remove = append(p.Remove, last...)
	return p
}

// sandbox decides whether the newest sandbox can be used.
func (p *Plan) sandbox(pod *corev1.Pod, a *actual.Pod) {
	newest := a.Sandbox()
	if newest == nil {
		p.CreateSandbox = true
		return
	}
	p.SandboxID = newest.Id
	p.Attempt = newest.GetMetadata().GetAttempt()
	ready := 0
	for _, s := range a.Sandboxes {
		if s.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			ready++
		}
	}
	onHost := newest.GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE
	if ready != 1 || !a.Ready() || onHost != pod.Spec.HostNetwork || !pod.Spec.HostNetwork && len(a.IPs()) == 0 {
		p.CreateSandbox, p.KillPod = true, true
		p.Attempt++
		p.SandboxID = ""
	}
}

// fresh plans a pod that needs a new sandbox.
func (p *Plan) fresh(pod *corev1.Pod, a *actual.Pod) {
	if p.Attempt != 0 && len(a.Containers) != 0 && !restartsEver(pod) {
		p.CreateSandbox = false // it ran once and must not run again
		return
	}
	var start []*corev1.Container
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if seen := a.Container(c.Name); seen.Exited() && !podspec.ShouldRestart(pod, c, seen.ExitCode) {
			continue
		}
		start = append(start, c)
	}
	if len(start) == 0 {
		p.CreateSandbox = false
		return
	}
	if len(pod.Spec.InitContainers) > 0 {
		start = []*corev1.Container{&pod.Spec.InitContainers[0]}
	}
	p.Start = start
}

func restartsEver(pod *corev1.Pod) bool {
	for i := range pod.Spec.Containers {
		if podspec.RestartsOnFailure(pod, &pod.Spec.Containers[i]) {
			return true
		}
	}
	return false
}

// current returns the newest container of a name in the sandbox in use.
func (p *Plan) current(a *actual.Pod, name string) *actual.Container {
	for _, c := range a.Containers {
		if c.Name == name && c.SandboxID == p.SandboxID {
			return c
		}
	}
	return nil
}

// init plans init containers and sidecars; true says that ordinary containers
// may run.
func (p *Plan) init(pod *corev1.Pod, a *actual.Pod, probes Probes) bool {
	specs := pod.Spec.InitContainers
	done := false // an ordinary container was made: the pod is initialized
	for i := range pod.Spec.Containers {
		if p.current(a, pod.Spec.Containers[i].Name) != nil {
			done = true
		}
	}
	last := -1 // the farthest init container that was ever made
	for i := range specs {
		if p.current(a, specs[i].Name) != nil {
			last = i
		}
	}
	for i := range specs {
		c := &specs[i]
		seen := p.current(a, c.Name)
		if !podspec.Sidecar(c) {
			if done {
				continue
			}
			switch {
			case seen == nil || !seen.Running() && !seen.Exited():
				if seen != nil && seen.State == runtimeapi.ContainerState_CONTAINER_UNKNOWN {
					p.Kill = append(p.Kill, Victim{Container: seen, Message: fmt.Sprintf("Init container is in %q state, try killing it before restart", "unknown")})
				}
				if seen == nil && i < last {
					continue // it ran; later ones could not have otherwise
				}
				p.Start = append(p.Start, c)
				return false
			case seen.Running():
				if Resized(pod, c, seen) {
					p.Update = append(p.Update, seen)
				}
				return false
			case seen.ExitCode == 0:
				continue
			case podspec.ShouldRestart(pod, c, seen.ExitCode):
				p.Start = append(p.Start, c)
				return false
			default:
				p.KillPod, p.Start = true, nil
				return false
			}
		}
		switch {
		case seen == nil || !seen.Running():
			if seen != nil && seen.State == runtimeapi.ContainerState_CONTAINER_UNKNOWN {
				p.Kill = append(p.Kill, Victim{Container: seen, Message: fmt.Sprintf("Init container is in %q state, try killing it before restart", "unknown")})
			}
			p.Start = append(p.Start, c)
			if !done && i >= last {
				return false
			}
		default:
			if message, probe := p.mustEnd(c, seen, probes); message != "" {
				p.Kill = append(p.Kill, Victim{Container: seen, Message: message + ", will be restarted", Probe: probe})
				p.Start = append(p.Start, c)
			} else if Resized(pod, c, seen) {
				p.Update = append(p.Update, seen)
			}
			if !done && i >= last && !probes.Started(pod, c.Name, seen.ID) {
				return false
			}
		}
	}
	return true
}

// mustEnd says why a running container has to be ended, "" for no reason.
func (p *Plan) mustEnd(c *corev1.Container, seen *actual.Container, probes Probes) (message, probe string) {
	if seen.Hash != actual.Hash(c) {
		return fmt.Sprintf("Container %s definition changed", c.Name), ""
	}
	switch probes.Failed(seen.ID) {
	case "Liveness":
		return fmt.Sprintf("Container %s failed liveness probe", c.Name), "Liveness"
	case "Startup":
		return fmt.Sprintf("Container %s failed startup probe", c.Name), "Startup"
	}
	return "", ""
}

func (p *Plan) regular(pod *corev1.Pod, a *actual.Pod, probes Probes) {
	keep, start := 0, 0
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		seen := a.Container(c.Name)
		if !seen.Running() {
			if status.Restarts(pod, c, a) {
				if seen != nil && seen.State == runtimeapi.ContainerState_CONTAINER_UNKNOWN {
					p.Kill = append(p.Kill, Victim{Container: seen, Message: fmt.Sprintf("Container is in %q state, try killing it before restart", "unknown")})
				}
				p.Start = append(p.Start, c)
				start++
			}
			continue
		}
		message, probe := p.mustEnd(c, seen, probes)
		resized := false
		if message == "" && Resized(pod, c, seen) {
			if ResizeRestarts(pod, c, seen) {
				message, resized = fmt.Sprintf("Container %s resize requires restart", c.Name), true
			} else {
				p.Update = append(p.Update, seen)
			}
		}
		if message == "" {
			keep++
			continue
		}
		if probe == "" || podspec.RestartsOnFailure(pod, c) {
			if !resized {
				message += ", will be restarted"
			}
			p.Start = append(p.Start, c)
			start++
		}
		p.Kill = append(p.Kill, Victim{Container: seen, Message: message, Probe: probe})
	}
	if keep == 0 && start == 0 {
		p.KillPod, p.Start = true, nil
	}
}
