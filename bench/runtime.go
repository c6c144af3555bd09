// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/cri/socket"
)

// Runtime measures a container runtime by its CRI socket, this program's or
// another: starts of pods one by one and many at once, from RunPodSandbox to
// StartContainer, their removal, and what memory a pod takes beside its workload.
type Runtime struct {
	// Endpoint is the socket.
	Endpoint string
	// PID is the runtime's process. With it the CPU time of the runtime and of
	// all that it starts for a pod (shims, monitors, helpers) is counted.
	PID int
	// Image is what pods run, with Command in place of its entrypoint, which must
	// not end. It is pulled where it is missing.
	Image   string
	Command []string
	// Pods are started in each of the ways.
	Pods int
	// AtOnce is how many start together in the second way.
	AtOnce int
	// HostNetwork leaves pods in the host's network, so that runtimes can be
	// compared without their networks.
	HostNetwork bool
}

// DefaultRuntime fits a machine of two cores.
func DefaultRuntime() Runtime {
	return Runtime{Endpoint: "unix:///run/kaji/kaji.sock", Image: "localhost/kaji", Command: []string{"/bin/sleep", "1000000"}, Pods: 100, AtOnce: 50}
}

type runtimeRun struct {
	Runtime
	c    *socket.Client
	name string
	id   string // sets this run's pods apart

	mu         sync.Mutex
	sandboxes  []string
	containers []string
}

// Run measures and removes its pods.
func (b Runtime) Run(ctx context.Context, report *Report) (err error) {
	c, err := socket.Dial(b.Endpoint)
	if err != nil {
		return err
	}
	r := &runtimeRun{Runtime: b, c: c, id: fmt.Sprint(time.Now().UnixNano())}
	defer func() { err = errors.Join(err, r.clear(context.WithoutCancel(ctx)), c.Close()) }()
	version, err := c.Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		return err
	}
	r.name = version.GetRuntimeName() + " " + version.GetRuntimeVersion()
	if err := r.pull(ctx); err != nil {
		return err
	}
	for _, workers := range []int{1, b.AtOnce} {
		if err := r.pods(ctx, report, workers); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (r *runtimeRun) pull(ctx context.Context) error {
	image := &runtimeapi.ImageSpec{Image: r.Image}
	have, err := r.c.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: image})
	if err != nil || have.GetImage() != nil {
		return err
	}
	_, err = r.c.PullImage(ctx, &runtimeapi.PullImageRequest{Image: image})
	return err
}

// pods starts all pods, looks at what they cost, and removes them.
func (r *runtimeRun) pods(ctx context.Context, report *Report, workers int) error {
	before, err := r.family()
	if err != nil {
		return err
	}
	start := measure(ctx, fmt.Sprintf("start of a pod, %d at once", workers), nil, workers, r.Pods, r.start)
	after, err := r.family()
	if err != nil {
		return err
	}
	start.Target, start.CPU = r.name, after.cpu-before.cpu
	report.Add(start)
	if r.PID != 0 && start.Errors == 0 {
		report.Add(Result{Target: r.name, Operation: fmt.Sprintf("memory of a pod beside its workload, %d at once", workers), Count: r.Pods,
			RSS: (after.proportional - before.proportional) / int64(r.Pods), Anonymous: (after.anonymous - before.anonymous) / int64(r.Pods)})
	}
	sandboxes := slices.Clone(r.sandboxes)
	end := measure(ctx, fmt.Sprintf("removal of a pod, %d at once", workers), nil, workers, len(sandboxes), func(ctx context.Context, i int) (int64, error) {
		return 0, r.remove(ctx, sandboxes[i])
	})
	end.Target = r.name
	report.Add(end)
	return r.clear(ctx)
}

// start brings one pod to life.
func (r *runtimeRun) start(ctx context.Context, i int) (int64, error) {
	name := fmt.Sprintf("bench-%s-%d", r.id, i)
	pod := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "bench", Uid: name}, Hostname: "bench",
		LogDirectory: filepath.Join(os.TempDir(), "kaji-bench-"+r.id, name),
		Linux:        &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{}},
	}
	if r.HostNetwork {
		pod.Hostname = ""
		pod.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}
	}
	if err := os.MkdirAll(pod.GetLogDirectory(), 0o755); err != nil {
		return 0, err
	}
	sandbox, err := r.c.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: pod})
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	r.sandboxes = append(r.sandboxes, sandbox.GetPodSandboxId())
	r.mu.Unlock()
	made, err := r.c.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox.GetPodSandboxId(), SandboxConfig: pod,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: r.Image}, Command: r.Command, LogPath: "c.log",
			Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: pod.GetLinux().GetSecurityContext().GetNamespaceOptions()}},
		}})
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	r.containers = append(r.containers, made.GetContainerId())
	r.mu.Unlock()
	_, err = r.c.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: made.GetContainerId()})
	return 0, err
}

func (r *runtimeRun) remove(ctx context.Context, sandbox string) error {
	if _, err := r.c.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		return err
	}
	if _, err := r.c.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sandboxes = slices.DeleteFunc(r.sandboxes, func(id string) bool { return id == sandbox })
	return nil
}

// clear removes what is left of the pods.
func (r *runtimeRun) clear(ctx context.Context) error {
	var errs []error
	for _, id := range slices.Clone(r.sandboxes) {
		errs = append(errs, r.remove(ctx, id))
	}
	r.sandboxes, r.containers = nil, nil
	return errors.Join(append(errs, os.RemoveAll(filepath.Join(os.TempDir(), "kaji-bench-"+r.id)))...)
}
