// SPDX-License-Identifier: Apache-2.0

package podrun

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/compose"
)

// start makes and starts one container; a failure is a *Failure.
func (r *Runner) start(ctx context.Context, pod *corev1.Pod, c *corev1.Container, a *actual.Pod, s sandbox) error {
	ref, err := r.cfg.Host.Image(ctx, pod, c, s.handler, s.config)
	if err != nil {
		var failure *Failure
		if errors.As(err, &failure) {
			r.event(pod, c, corev1.EventTypeWarning, "Failed", "Error: %s", failure.Reason)
			return failure
		}
		return err
	}
	restarts := int32(0)
	if former := a.Container(c.Name); former != nil {
		restarts = former.RestartCount + 1
	} else {
		restarts = r.lastAttempt(pod, c) + 1
	}
	config, err := r.containerConfig(ctx, pod, c, a, s, ref, restarts)
	if err != nil {
		var failure *Failure
		if errors.As(err, &failure) { // the image of a volume
			r.event(pod, c, corev1.EventTypeWarning, "Failed", "Error: %s", failure.Reason)
			return failure
		}
		message := plainMessage(err)
		r.event(pod, c, corev1.EventTypeWarning, "Failed", "Error: %s", message)
		return &Failure{Reason: "CreateContainerConfigError", Message: message}
	}
	created, err := r.cfg.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: s.id, Config: config, SandboxConfig: s.config})
	if err != nil {
		r.event(pod, c, corev1.EventTypeWarning, "Failed", "Error: %s", plainMessage(err))
		return &Failure{Reason: "CreateContainerError", Message: plainMessage(err)}
	}
	r.event(pod, c, corev1.EventTypeNormal, "Created", "Container created")
	_, err = r.cfg.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId})
	r.counted(kindOf(pod, c.Name), err)
	if err != nil {
		r.event(pod, c, corev1.EventTypeWarning, "Failed", "Error: %s", plainMessage(err))
		return &Failure{Reason: "RunContainerError", Message: plainMessage(err)}
	}
	r.event(pod, c, corev1.EventTypeNormal, "Started", "Container started")
	r.linkLog(pod, c, created.ContainerId, filepath.Join(s.config.LogDirectory, config.LogPath))
	if c.Lifecycle != nil && c.Lifecycle.PostStart != nil {
		if err := r.hook(ctx, pod, c, created.ContainerId, s.ips, c.Lifecycle.PostStart); err != nil {
			// The message stays out of the event: it may carry a server's secrets.
			r.event(pod, c, corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed")
			if kill := r.killContainer(ctx, pod, killing{id: created.ContainerId, name: c.Name, spec: c, message: "FailedPostStartHook"}, nil); kill != nil {
				r.cfg.Logger.Warn("container was not ended after its hook failed", "container", created.ContainerId, "err", kill)
			}
			return &Failure{Reason: "PostStartHookError", Message: err.Error()}
		}
	}
	return nil
}

func (r *Runner) counted(kind string, err error) {
	if r.cfg.Counted != nil {
		r.cfg.Counted(kind, err)
	}
}

// kindOf names the list of a pod that a container stands in.
func kindOf(pod *corev1.Pod, name string) string {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return "init_container"
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return "ephemeral_container"
		}
	}
	return "container"
}

// sandbox is where containers are made.
type sandbox struct {
	id, handler string
	config      *runtimeapi.PodSandboxConfig
	ips         []string
}

// lastAttempt reads the number of the last run from the log files, for
// containers that the runtime has forgotten; -1 for none.
func (r *Runner) lastAttempt(pod *corev1.Pod, c *corev1.Container) int32 {
	last := int32(-1)
	files, err := os.ReadDir(filepath.Join(r.PodLogDir(pod), c.Name))
	if err != nil {
		return last
	}
	for _, f := range files {
		number, _, _ := strings.Cut(f.Name(), ".")
		if n, err := strconv.ParseInt(number, 10, 32); err == nil && int32(n) > last {
			last = int32(n)
		}
	}
	return last
}

func (r *Runner) linkLog(pod *corev1.Pod, c *corev1.Container, id, log string) {
	if r.cfg.LegacyLogDir == "" {
		return
	}
	if _, err := os.Stat(log); err != nil {
		return
	}
	link := filepath.Join(r.cfg.LegacyLogDir, legacyLogName(pod.Name, pod.Namespace, c.Name, id))
	if err := os.Symlink(log, link); err != nil && !errors.Is(err, os.ErrExist) {
		r.cfg.Logger.Warn("log was not linked", "link", link, "err", err)
	}
}

func legacyLogName(pod, namespace, container, id string) string {
	name := fmt.Sprintf("%s_%s_%s-%s", pod, namespace, container, id)
	if limit := 256 - len(".log") - 1; len(name) > limit {
		name = name[:limit]
	}
	return name + ".log"
}

func (r *Runner) containerConfig(ctx context.Context, pod *corev1.Pod, c *corev1.Container, a *actual.Pod, s sandbox, ref string, restarts int32) (*runtimeapi.ContainerConfig, error) {
	options, err := r.cfg.Host.Options(ctx, pod, c, s.ips)
	if err != nil {
		return nil, err
	}
	user, err := r.imageUser(ctx, ref)
	if err != nil {
		return nil, err
	}
	security, err := r.security(pod, c, user, options)
	if err != nil {
		return nil, err
	}
	if target := targetName(pod, c.Name); target != "" {
		running := a.Container(target)
		if !running.Running() {
			return nil, fmt.Errorf("unable to find target container %s", target)
		}
		security.NamespaceOptions.Pid, security.NamespaceOptions.TargetId = runtimeapi.NamespaceMode_TARGET, running.ID
	}
	if security.NamespaceOptions != nil {
		security.NamespaceOptions.UsernsOptions = s.config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
	}
	if err := os.MkdirAll(filepath.Join(s.config.LogDirectory, c.Name), 0o755); err != nil {
		return nil, fmt.Errorf("create container log directory for container %s failed: %w", c.Name, err)
	}
	values := make(map[string]string, len(options.Env))
	envs := make([]*runtimeapi.KeyValue, 0, len(options.Env))
	for _, v := range options.Env {
		values[v.Name] = v.Value
		envs = append(envs, &runtimeapi.KeyValue{Key: v.Name, Value: []byte(v.Value)})
	}
	expand := func(list []string) []string {
		out := make([]string, 0, len(list))
		for _, one := range list {
			out = append(out, compose.Expand(one, compose.In(values)))
		}
		return out
	}
	mounts, err := terminationMount(options, c)
	if err != nil {
		return nil, err
	}
	if userns := s.config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions(); userns.GetMode() == runtimeapi.NamespaceMode_POD {
		for _, m := range mounts { // files belong to the pod's users as they would without a namespace
			m.UidMappings, m.GidMappings = userns.GetUids(), userns.GetGids()
		}
	}
	annotations := actual.ContainerAnnotations(pod, c, restarts)
	for k, v := range options.Annotations {
		annotations[k] = v
	}
	resources := r.resources(pod, c)
	resources.CpusetCpus, resources.CpusetMems = options.CPUs, options.Memories
	config := &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: uint32(restarts)},
		Image:       &runtimeapi.ImageSpec{Image: ref, UserSpecifiedImage: c.Image, RuntimeHandler: s.handler},
		Command:     expand(c.Command),
		Args:        expand(c.Args),
		WorkingDir:  c.WorkingDir,
		Envs:        envs,
		Mounts:      mounts,
		Devices:     options.Devices,
		CDIDevices:  options.CDIDevices,
		Labels:      actual.ContainerLabels(pod, c),
		Annotations: annotations,
		LogPath:     filepath.Join(c.Name, fmt.Sprintf("%d.log", restarts)),
		Stdin:       c.Stdin, StdinOnce: c.StdinOnce, Tty: c.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{Resources: resources, SecurityContext: security},
	}
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		config.StopSignal = runtimeapi.Signal(runtimeapi.Signal_value["SIGNAL_"+string(*c.Lifecycle.StopSignal)])
	}
	return config, nil
}

func targetName(pod *corev1.Pod, name string) string {
	for i := range pod.Spec.EphemeralContainers {
		if e := &pod.Spec.EphemeralContainers[i]; e.Name == name {
			return e.TargetContainerName
		}
	}
	return ""
}

// terminationMount adds the file that a container writes its last words to.
func terminationMount(options *Options, c *corev1.Container) ([]*runtimeapi.Mount, error) {
	if options.TerminationDir == "" || c.TerminationMessagePath == "" {
		return options.Mounts, nil
	}
	var id [4]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("name the termination log: %w", err)
	}
	path := filepath.Join(options.TerminationDir, hex.EncodeToString(id[:]))
	if err := os.MkdirAll(options.TerminationDir, 0o750); err != nil {
		return nil, fmt.Errorf("make the directory of the termination log: %w", err)
	}
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		return nil, fmt.Errorf("make the termination log: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil { // whatever the umask is
		return nil, fmt.Errorf("make the termination log: %w", err)
	}
	return append(options.Mounts, &runtimeapi.Mount{HostPath: path, ContainerPath: c.TerminationMessagePath, SelinuxRelabel: options.Relabel}), nil
}

// imageUser asks who runs in an image; an image that is gone runs as root.
func (r *Runner) imageUser(ctx context.Context, ref string) (ImageUser, error) {
	images, ok := r.cfg.Host.(interface {
		ImageUser(ctx context.Context, ref string) (ImageUser, error)
	})
	if !ok {
		return ImageUser{}, nil
	}
	return images.ImageUser(ctx, ref)
}

// backOff decides whether a container that ended must wait before it is
// started again.
func (r *Runner) backOff(pod *corev1.Pod, c *corev1.Container, a *actual.Pod) *Failure {
	// One that has just been ended counts next time; until then the one before does.
	at := slices.IndexFunc(a.Containers, func(seen *actual.Container) bool { return seen.Name == c.Name && seen.Exited() })
	if at < 0 {
		return nil
	}
	former := a.Containers[at]
	now := time.Now()
	key := fmt.Sprintf("%s_%s_%x", pod.UID, c.Name, actual.Hash(c))
	waits, ended := r.backoff.IsInBackOffSince(key, former.FinishedAt), former.FinishedAt
	if ended.After(now) { // the clock was put back: what counts is when it was started last
		waits, ended = r.backoff.IsInBackOffSinceUpdate(key, now), now
	}
	if waits {
		delay := r.backoff.Get(key)
		r.event(pod, c, corev1.EventTypeWarning, "BackOff", "Back-off restarting failed container %s in pod %s", c.Name, describe(pod))
		return &Failure{Reason: "CrashLoopBackOff", RetryAt: ended.Add(delay),
			Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", delay, c.Name, describe(pod))}
	}
	r.backoff.Next(key, ended)
	return nil
}

// remaining is what is left of a duration since a time, never negative.
func remaining(d time.Duration, since time.Time) time.Duration { return max(d-time.Since(since), 0) }
