// SPDX-License-Identifier: Apache-2.0

// Package podrun makes a container runtime have what a pod's specification
// asks for. Each call of Sync compares the two (plan.go, pure) and takes the
// steps that are missing: sandbox, init containers in order, sidecars, ordinary
// containers, restarts with back-off. Kill ends a pod in the order its
// specification asks for. A pod worker calls it, one call at a time for a pod;
// different pods run side by side. It never talks to the API server.
package podrun

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/cri"
	"kaji/internal/kubelet/compose"
	"kaji/internal/kubelet/podspec"
	"kaji/internal/kubelet/status"
)

// Host is what the node gives to pods. Errors of type *compose.ConfigError
// become CreateContainerConfigError.
type Host interface {
	// Options are what a container is given beyond its specification.
	Options(ctx context.Context, pod *corev1.Pod, c *corev1.Container, podIPs []string) (*Options, error)
	// Sandbox fills in what the node decides of a sandbox: host name, name
	// resolution, cgroup parent, user namespace.
	Sandbox(pod *corev1.Pod, config *runtimeapi.PodSandboxConfig) error
	// RuntimeHandler is the handler of the pod's RuntimeClass, "" for none.
	RuntimeHandler(pod *corev1.Pod) (string, error)
	// Image makes the image of a container present and returns its reference.
	// A failure is a *Failure.
	Image(ctx context.Context, pod *corev1.Pod, c *corev1.Container, handler string, sandbox *runtimeapi.PodSandboxConfig) (ref string, err error)
	// MemoryCapacity is the node's memory in bytes.
	MemoryCapacity() int64
}

// Options are what the node adds to a container.
type Options struct {
	Env         []compose.Variable
	Mounts      []*runtimeapi.Mount
	Devices     []*runtimeapi.Device
	CDIDevices  []*runtimeapi.CDIDevice
	Annotations map[string]string
	// SupplementalGroups are those that volumes ask for.
	SupplementalGroups []int64
	// CPUs and Memories are the sets of an exclusive assignment, "" for none.
	CPUs, Memories string
	// TerminationDir is where the file of the termination message is made; Relabel has
	// the runtime label it for SELinux.
	TerminationDir string
	Relabel        bool
}

// Failure is why a container could not be started, as its status shows it.
type Failure struct {
	Reason, Message string
	// RetryAt is when trying again makes sense; zero means soon.
	RetryAt time.Time
}

func (f *Failure) Error() string { return f.Reason + ": " + f.Message }

// Probes are the verdicts that restart containers.
type Probes interface {
	status.Health
	// Failed returns the kind of the probe that wants the container restarted:
	// "Liveness", "Startup" or "".
	Failed(containerID string) string
}

// Config is what a Runner needs. All fields but the durations are required.
type Config struct {
	Runtime  cri.Runtime
	Host     Host
	Probes   Probes
	Recorder record.EventRecorder
	Logger   *slog.Logger
	// LogDir is where containers' logs go: "/var/log/pods".
	LogDir string
	// LegacyLogDir holds links to logs under their old names; "" for none.
	LegacyLogDir string
	// SeccompRoot is where local seccomp profiles are.
	SeccompRoot string
	// SeccompDefault makes RuntimeDefault the profile of containers with none.
	SeccompDefault bool
	// Sysctls are those of pods that do not say otherwise and do not share the
	// namespace that they are of with the node.
	Sysctls map[string]string
	// NoCPUQuota leaves CPU limits unenforced.
	NoCPUQuota bool
	// Exclusive says whether a container has CPUs for itself; it gets no quota. Nil
	// says of none.
	Exclusive func(pod types.UID, container string) bool
	// CPUPeriod is the period of CPU quotas; zero means 100 ms.
	CPUPeriod time.Duration
	// Memory is how the kernel limits memory.
	Memory Memory
	// BackOff and MaxBackOff delay restarts; zero means 10 s and 5 min.
	BackOff, MaxBackOff time.Duration
	// Hooks runs lifecycle hooks that are requests; nil means a client that
	// trusts every server.
	Hooks HTTPDoer
	// Counted is told of each container and sandbox that was started or could not
	// be, by kind: container, init_container, ephemeral_container, podsandbox; and
	// as user_namespace of the first steps of each pod with a user namespace.
	Counted func(kind string, err error)
	// FellBack is told of hooks by HTTPS whose server answered HTTP.
	FellBack func()
}

// Runner runs pods. Its methods are safe for concurrent use for different pods.
type Runner struct {
	cfg     Config
	backoff *flowcontrol.Backoff
	mu      struct {
		sync.Mutex
		waiting map[types.UID]map[string]status.Reason
	}
}

// New returns a Runner.
func New(cfg Config) *Runner {
	if cfg.BackOff == 0 {
		cfg.BackOff = 10 * time.Second
	}
	if cfg.MaxBackOff == 0 {
		cfg.MaxBackOff = 5 * time.Minute
	}
	if cfg.CPUPeriod == 0 {
		cfg.CPUPeriod = 100 * time.Millisecond
	}
	if cfg.Hooks == nil {
		cfg.Hooks = hookClient()
	}
	r := &Runner{cfg: cfg, backoff: flowcontrol.NewBackOff(cfg.BackOff, cfg.MaxBackOff)}
	r.mu.waiting = map[types.UID]map[string]status.Reason{}
	return r
}

// Waiting tells why a container of a pod could not be started.
func (r *Runner) Waiting(uid types.UID, container string) (status.Reason, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	reason, ok := r.mu.waiting[uid][container]
	return reason, ok
}

func (r *Runner) wait(uid types.UID, container string, failure *Failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if failure == nil {
		delete(r.mu.waiting[uid], container)
		return
	}
	if r.mu.waiting[uid] == nil {
		r.mu.waiting[uid] = map[string]status.Reason{}
	}
	r.mu.waiting[uid][container] = status.Reason{Reason: failure.Reason, Message: failure.Message}
}

// Forget drops what is remembered of a pod that is gone.
func (r *Runner) Forget(uid types.UID) {
	r.mu.Lock()
	delete(r.mu.waiting, uid)
	r.mu.Unlock()
	r.backoff.GC()
}

// event records an event of a container.
func (r *Runner) event(pod *corev1.Pod, c *corev1.Container, kind, reason, format string, args ...any) {
	ref := Reference(pod)
	ref.FieldPath = FieldPath(pod, c.Name)
	r.cfg.Recorder.Eventf(ref, kind, reason, format, args...)
}

// Reference is a pod as events refer to it.
func Reference(pod *corev1.Pod) *corev1.ObjectReference {
	ref := &corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion}
	return ref
}

// FieldPath is a container as events refer to it.
func FieldPath(pod *corev1.Pod, name string) string {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return fmt.Sprintf("spec.initContainers{%s}", name)
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return fmt.Sprintf("spec.ephemeralContainers{%s}", name)
		}
	}
	return fmt.Sprintf("spec.containers{%s}", name)
}

// describe names a pod in messages as upstream does.
func describe(pod *corev1.Pod) string {
	return fmt.Sprintf("%s(%s)", podspec.FullName(pod), pod.UID)
}
