// SPDX-License-Identifier: Apache-2.0

// Package actual reads what a container runtime has of a pod: its sandboxes and
// containers with everything the node agent wrote on them as labels and
// annotations. The labels are upstream's, so that tools that read a runtime
// (crictl, log collectors) find what they look for, and so that a restarted
// agent recognises its pods. It never changes anything.
package actual

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"

	"kaji/internal/cri"
)

// Annotations of a container, as upstream's kubelet names them.
const (
	annotationHash                   = "io.kubernetes.container.hash"
	annotationRestartCount           = "io.kubernetes.container.restartCount"
	annotationTerminationMessagePath = "io.kubernetes.container.terminationMessagePath"
	annotationTerminationPolicy      = "io.kubernetes.container.terminationMessagePolicy"
	annotationGracePeriod            = "io.kubernetes.pod.terminationGracePeriod"
)

// Pod is what the runtime has of one pod at one moment. It is immutable.
type Pod struct {
	UID             types.UID
	Namespace, Name string
	// Sandboxes are newest first.
	Sandboxes []*runtimeapi.PodSandboxStatus
	// Containers are newest first among those of a name, those of former sandboxes
	// included.
	Containers []*Container
}

// Container is one container of a pod, running or not.
type Container struct {
	ID, Name, SandboxID string
	State               runtimeapi.ContainerState
	// CreatedAt, StartedAt and FinishedAt are zero where it has not come to that.
	CreatedAt, StartedAt, FinishedAt time.Time
	ExitCode                         int32
	Reason, Message                  string
	// Image is the name from the pod's specification, ImageRef the digested
	// reference, ImageID the runtime's own identity.
	Image, ImageRef, ImageID string
	// Hash is that of the specification the container was made from; see Hash.
	Hash         uint64
	RestartCount int32
	// GracePeriod is the pod's termination grace when the container was made.
	GracePeriod              time.Duration
	TerminationMessagePath   string
	TerminationMessagePolicy corev1.TerminationMessagePolicy
	LogPath                  string
	Mounts                   []*runtimeapi.Mount
	Resources                *runtimeapi.LinuxContainerResources
	User                     *runtimeapi.ContainerUser
	StopSignal               runtimeapi.Signal
}

// Running says whether the container runs.
func (c *Container) Running() bool {
	return c != nil && c.State == runtimeapi.ContainerState_CONTAINER_RUNNING
}

// Exited says whether the container ran and ended.
func (c *Container) Exited() bool {
	return c != nil && c.State == runtimeapi.ContainerState_CONTAINER_EXITED
}

// Container returns the newest container of a name, nil for none.
func (p *Pod) Container(name string) *Container {
	if p == nil {
		return nil
	}
	for _, c := range p.Containers {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// ByID returns the container with an id, nil for none.
func (p *Pod) ByID(id string) *Container {
	if p == nil {
		return nil
	}
	for _, c := range p.Containers {
		if c.ID == id {
			return c
		}
	}
	return nil
}

// Running returns the containers that are not known to have ended: running
// ones, and those whose state the runtime cannot tell.
func (p *Pod) Running() []*Container {
	if p == nil {
		return nil
	}
	var running []*Container
	for _, c := range p.Containers {
		if c.Running() || c.State == runtimeapi.ContainerState_CONTAINER_UNKNOWN {
			running = append(running, c)
		}
	}
	return running
}

// Sandbox returns the newest sandbox, nil for none.
func (p *Pod) Sandbox() *runtimeapi.PodSandboxStatus {
	if p == nil || len(p.Sandboxes) == 0 {
		return nil
	}
	return p.Sandboxes[0]
}

// Ready says whether the newest sandbox is ready.
func (p *Pod) Ready() bool {
	s := p.Sandbox()
	return s != nil && s.State == runtimeapi.PodSandboxState_SANDBOX_READY
}

// IPs are the addresses of the newest sandbox if it is ready, primary first.
func (p *Pod) IPs() []string {
	s := p.Sandbox()
	if !p.Ready() || s.Network == nil || s.Network.Ip == "" {
		return nil
	}
	ips := []string{s.Network.Ip}
	for _, more := range s.Network.AdditionalIps {
		ips = append(ips, more.Ip)
	}
	return ips
}

// Observe reads a pod from the runtime. A pod of which the runtime has nothing
// is an empty Pod, not an error.
func Observe(ctx context.Context, runtime cri.Runtime, namespace, name string, uid types.UID) (*Pod, error) {
	pod := &Pod{UID: uid, Namespace: namespace, Name: name}
	selector := map[string]string{kubelettypes.KubernetesPodUIDLabel: string(uid)}
	sandboxes, err := runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{
		Filter: &runtimeapi.PodSandboxFilter{LabelSelector: selector},
	})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes of pod %s: %w", uid, err)
	}
	for _, s := range sandboxes.Items {
		answer, err := runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: s.Id})
		if status.Code(err) == codes.NotFound {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("status of sandbox %s: %w", s.Id, err)
		}
		pod.Sandboxes = append(pod.Sandboxes, answer.Status)
	}
	// The clock may have been put back since the last one was made: counts come first.
	slices.SortStableFunc(pod.Sandboxes, func(a, b *runtimeapi.PodSandboxStatus) int {
		return cmp.Or(cmp.Compare(b.GetMetadata().GetAttempt(), a.GetMetadata().GetAttempt()), cmp.Compare(b.CreatedAt, a.CreatedAt))
	})
	containers, err := runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{
		Filter: &runtimeapi.ContainerFilter{LabelSelector: selector},
	})
	if err != nil {
		return nil, fmt.Errorf("list containers of pod %s: %w", uid, err)
	}
	for _, c := range containers.Containers {
		answer, err := runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: c.Id})
		if status.Code(err) == codes.NotFound {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("status of container %s: %w", c.Id, err)
		}
		pod.Containers = append(pod.Containers, container(c.PodSandboxId, answer.Status))
	}
	slices.SortStableFunc(pod.Containers, func(a, b *Container) int {
		return cmp.Or(cmp.Compare(b.RestartCount, a.RestartCount), b.CreatedAt.Compare(a.CreatedAt))
	})
	return pod, nil
}

// Key names a pod of the runtime.
type Key struct {
	UID             types.UID
	Namespace, Name string
}

// List returns every pod that the runtime has something of.
func List(ctx context.Context, runtime cri.Runtime) ([]Key, error) {
	seen := map[types.UID]Key{}
	add := func(labels map[string]string) {
		if uid := types.UID(labels[kubelettypes.KubernetesPodUIDLabel]); uid != "" {
			seen[uid] = Key{uid, labels[kubelettypes.KubernetesPodNamespaceLabel], labels[kubelettypes.KubernetesPodNameLabel]}
		}
	}
	sandboxes, err := runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	for _, s := range sandboxes.Items {
		add(s.Labels)
	}
	containers, err := runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	for _, c := range containers.Containers {
		add(c.Labels)
	}
	keys := make([]Key, 0, len(seen))
	for _, k := range seen {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b Key) int { return cmp.Compare(a.UID, b.UID) })
	return keys, nil
}

func container(sandboxID string, s *runtimeapi.ContainerStatus) *Container {
	c := &Container{
		ID: s.Id, Name: s.Labels[kubelettypes.KubernetesContainerNameLabel], SandboxID: sandboxID,
		State:     s.State,
		CreatedAt: nanos(s.CreatedAt), StartedAt: nanos(s.StartedAt), FinishedAt: nanos(s.FinishedAt),
		ExitCode: s.ExitCode, Reason: s.Reason, Message: s.Message,
		Image: s.GetImage().GetImage(), ImageRef: s.ImageRef, ImageID: cmp.Or(s.ImageId, s.ImageRef),
		TerminationMessagePath:   s.Annotations[annotationTerminationMessagePath],
		TerminationMessagePolicy: corev1.TerminationMessagePolicy(s.Annotations[annotationTerminationPolicy]),
		LogPath:                  s.LogPath,
		Mounts:                   s.Mounts,
		Resources:                s.GetResources().GetLinux(),
		User:                     s.User,
		StopSignal:               s.StopSignal,
	}
	if user := s.GetImage().GetUserSpecifiedImage(); user != "" {
		c.Image = user
	}
	// Foreign values parse to zero: the container is then remade, not trusted.
	c.Hash, _ = strconv.ParseUint(s.Annotations[annotationHash], 16, 64)
	restarts, _ := strconv.ParseInt(s.Annotations[annotationRestartCount], 10, 32)
	c.RestartCount = int32(restarts)
	grace, _ := strconv.ParseInt(s.Annotations[annotationGracePeriod], 10, 64)
	c.GracePeriod = time.Duration(grace) * time.Second
	return c
}

func nanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}
