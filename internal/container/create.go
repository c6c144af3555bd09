// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/selinux/go-selinux/label"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/container/apparmor"
	"kaji/internal/container/image"
	"kaji/internal/container/spec"
)

// CreateContainer prepares a container: its root file system and its
// specification. Nothing runs before StartContainer.
func (r *Runtime) CreateContainer(ctx context.Context, req *runtimeapi.CreateContainerRequest) (_ *runtimeapi.CreateContainerResponse, err error) {
	config := req.GetConfig()
	if config.GetMetadata().GetName() == "" {
		return nil, status.Error(codes.InvalidArgument, "container config must include metadata")
	}
	id := newID()
	var from *saved
	if isCheckpoint(config.GetImage()) {
		if from, err = r.openCheckpoint(id, config.GetImage().GetImage()); err != nil {
			return nil, err
		}
	}
	if err := r.createContainer(ctx, id, req.GetPodSandboxId(), config, from); err != nil {
		return nil, errors.Join(err, os.RemoveAll(r.containerRoot(id)))
	}
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

// createContainer prepares the container id, from a checkpoint if there is one.
func (r *Runtime) createContainer(ctx context.Context, id, sandbox string, config *runtimeapi.ContainerConfig, from *saved) (err error) {
	s, err := r.findSandbox(sandbox)
	if err != nil {
		return fmt.Errorf("failed to find sandbox id %q: %w", sandbox, err)
	}
	if !s.record.Load().Ready {
		return status.Errorf(codes.FailedPrecondition, "sandbox %q is not running", sandbox)
	}
	var img *image.Image
	if from != nil {
		img, err = r.base(from)
	} else {
		img, err = r.imageOf(config.GetImage())
	}
	if err != nil {
		return err
	}
	c := &container{sandbox: s, ended: make(chan struct{}), release: r.images.Hold(img.DiffIDs)}
	sandboxConfig := s.record.Load().Config.value
	c.record.Store(&containerRecord{
		ID: id, Sandbox: s.record.Load().ID, Config: message[*runtimeapi.ContainerConfig]{config},
		ImageID: img.ID, ImageRef: imageRef(img), Layers: img.DiffIDs, Created: time.Now(), Restore: from != nil,
		State: runtimeapi.ContainerState_CONTAINER_CREATED, LogPath: logPath(sandboxConfig, config),
		Cgroup: r.cgroups.Path(sandboxConfig.GetLinux().GetCgroupParent(), id), StopSignal: img.Config.Config.StopSignal,
		User: message[*runtimeapi.ContainerUser]{&runtimeapi.ContainerUser{}},
	})
	c.op.Lock()
	defer c.op.Unlock()
	defer func() {
		if err != nil {
			err = errors.Join(err, r.deleteContainer(context.WithoutCancel(ctx), c))
		}
	}()
	if err := r.prepareContainer(c, &img.Config.Config, from); err != nil {
		return err
	}
	r.mu.Lock()
	r.containers[id] = c
	r.mu.Unlock()
	r.emitContainer(c, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	return nil
}

// imageOf finds the image that a container asks for: the kubelet gives the id.
func (r *Runtime) imageOf(image *runtimeapi.ImageSpec) (*image.Image, error) {
	img, err := r.images.Get(image.GetImage())
	if err != nil {
		return nil, status.Errorf(codes.NotFound, "failed to resolve image %q: %v", image.GetImage(), err)
	}
	return img, nil
}

// imageRef is how a container's status names its image.
func imageRef(img *image.Image) string {
	if len(img.RepoDigests) > 0 {
		return img.RepoDigests[0]
	}
	return img.ID
}

// prepareContainer makes the directories, the root file system and the
// specification of a container.
func (r *Runtime) prepareContainer(c *container, img *v1.Config, from *saved) error {
	rec := c.record.Load()
	root, rootfs := r.containerRoot(rec.ID), filepath.Join(r.containerState(rec.ID), "rootfs")
	for _, dir := range []string{root, r.containerState(rec.ID)} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	if err := r.updateContainer(c, func(*containerRecord) {}); err != nil {
		return err
	}
	if from != nil {
		if err := from.unpackFiles(filepath.Join(root, "upper")); err != nil {
			return err
		}
	}
	if err := r.mountRootfs(c, rootfs); err != nil {
		return err
	}
	config, err := r.mountImages(c)
	if err != nil {
		return err
	}
	if from != nil {
		config = from.expected(config)
	}
	s, err := r.specify(c, config, img, rootfs)
	if err != nil {
		return err
	}
	if from != nil {
		if err := from.merge(s); err != nil {
			return err
		}
	}
	if err := r.relabel(config, s); err != nil {
		return err
	}
	if err := spec.MarshalBundle(s, root); err != nil {
		return err
	}
	process, err := json.Marshal(s.Process)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "process.json"), process, 0o600); err != nil {
		return err
	}
	return r.updateContainer(c, func(rec *containerRecord) {
		rec.Complete, rec.HasHooks = true, s.Hooks != nil
		rec.User.value = containerUser(s.Process.User)
	})
}

// relabel gives the volumes that ask for it the label of the container's files.
func (r *Runtime) relabel(config *runtimeapi.ContainerConfig, s *specs.Spec) error {
	if !r.node.SELinux || s.Linux.MountLabel == "" {
		return nil
	}
	for _, m := range config.GetMounts() {
		if !m.GetSelinuxRelabel() {
			continue
		}
		if err := label.Relabel(m.GetHostPath(), s.Linux.MountLabel, false); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("relabel %q with %q failed: %w", m.GetHostPath(), s.Linux.MountLabel, err)
		}
	}
	return nil
}

func containerUser(u specs.User) *runtimeapi.ContainerUser {
	out := &runtimeapi.LinuxContainerUser{Uid: int64(u.UID), Gid: int64(u.GID)}
	for _, gid := range u.AdditionalGids {
		out.SupplementalGroups = append(out.SupplementalGroups, int64(gid))
	}
	return &runtimeapi.ContainerUser{Linux: out}
}

// mountRootfs stacks the image's layers under the container's own.
func (r *Runtime) mountRootfs(c *container, rootfs string) error {
	rec := c.record.Load()
	root := r.containerRoot(rec.ID)
	m := image.Rootfs{Layers: rec.Layers, Upper: filepath.Join(root, "upper"), Work: filepath.Join(root, "work"), Target: rootfs}
	r.mapOwners(&m, c)
	return r.images.Mount(m)
}

// mapOwners maps the files' owners for a pod with a user namespace.
func (r *Runtime) mapOwners(m *image.Rootfs, c *container) {
	pod := c.sandbox.record.Load()
	if uid, gid := rootMapping(pod.Config.value); uid >= 0 {
		m.UserNS, m.RootUID, m.RootGID = fmt.Sprintf("/proc/%d/ns/user", pod.PausePid.Pid), int(uid), int(gid)
	}
}

// mountImages mounts the image volumes of a container and returns its
// configuration with their paths on the host in place of the images.
func (r *Runtime) mountImages(c *container) (*runtimeapi.ContainerConfig, error) {
	rec := c.record.Load()
	config := rec.Config.value
	var own *runtimeapi.ContainerConfig
	for i, m := range config.GetMounts() {
		if m.GetImage().GetImage() == "" {
			continue
		}
		if own == nil {
			own = proto.Clone(config).(*runtimeapi.ContainerConfig)
		}
		if !m.GetReadonly() {
			return nil, status.Errorf(codes.InvalidArgument, "the image volume at %q must be read-only", m.GetContainerPath())
		}
		img, err := r.imageOf(m.GetImage())
		if err != nil {
			return nil, err
		}
		target := filepath.Join(r.containerState(rec.ID), fmt.Sprintf("image-%d", i))
		release, held := r.images.Hold(img.DiffIDs), c.release
		c.release = func() { release(); held() }
		volume := image.Rootfs{Layers: img.DiffIDs, Target: target}
		r.mapOwners(&volume, c)
		if err := r.images.Mount(volume); err != nil {
			return nil, err
		}
		path, err := imageSubPath(target, m.GetImageSubPath())
		if err != nil {
			return nil, err
		}
		own.Mounts[i].HostPath, own.Mounts[i].Readonly = path, true
		if err := r.updateContainer(c, func(rec *containerRecord) {
			rec.VolumeLayers = append(append([]string(nil), rec.VolumeLayers...), img.DiffIDs...)
			told := proto.Clone(rec.Config.value).(*runtimeapi.ContainerConfig)
			told.Mounts[i].Image.ImageRef = img.ID
			rec.Config.value = told
		}); err != nil {
			return nil, err
		}
	}
	if own == nil {
		return config, nil
	}
	return own, nil
}

// imageSubPath resolves a path inside a mounted image.
func imageSubPath(mount, sub string) (string, error) {
	if sub == "" {
		return mount, nil
	}
	root, err := os.OpenRoot(mount)
	if err != nil {
		return "", err
	}
	defer root.Close()
	if _, err := root.Stat(sub); err != nil {
		return "", fmt.Errorf("failed to mount image volume: sub path %q: %w", sub, err)
	}
	return filepath.Join(mount, sub), nil
}

// defaultConfinement loads the AppArmor profile of containers that name none and
// returns its name, empty where there is none.
func (r *Runtime) defaultConfinement() string {
	if !r.node.AppArmor {
		return ""
	}
	if err := apparmor.LoadDefault(); err != nil {
		r.log.Warn("containers that name no AppArmor profile have none", "err", err)
		return ""
	}
	return apparmor.Default
}

// specify builds the OCI specification.
func (r *Runtime) specify(c *container, config *runtimeapi.ContainerConfig, img *v1.Config, rootfs string) (*specs.Spec, error) {
	rec, pod := c.record.Load(), c.sandbox.record.Load()
	in := spec.Input{
		ID: rec.ID, Sandbox: pod.Config.value, Config: config, Image: img, Rootfs: rootfs,
		PausePid: pod.PausePid.Pid, Hostname: pod.Hostname,
		ResolvConf: filepath.Join(r.sandboxRoot(pod.ID), "resolv.conf"), HostnameFile: filepath.Join(r.sandboxRoot(pod.ID), "hostname"),
		Shm: filepath.Join(r.sandboxState(pod.ID), "shm"), CgroupsPath: rec.Cgroup, SeccompRoot: r.cfg.SeccompRoot, Node: r.node,
	}
	in.Node.AppArmorDefault = r.confinement()
	if namespaceOptions(pod.Config.value).GetIpc() == runtimeapi.NamespaceMode_NODE {
		in.Shm = "/dev/shm"
	}
	modes := config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if modes.GetPid() == runtimeapi.NamespaceMode_TARGET {
		target, err := r.findContainer(modes.GetTargetId())
		if err != nil {
			return nil, fmt.Errorf("invalid target container: %w", err)
		}
		t := target.record.Load()
		if t.Sandbox != pod.ID || t.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			return nil, status.Errorf(codes.FailedPrecondition, "invalid target container: container %q is not running in the sandbox", t.ID)
		}
		in.TargetPid = t.Pid.Pid
	}
	return spec.Build(in)
}

// respecify writes the specification of a container anew, with changed limits: for
// its start, or for who asks what it is.
func (r *Runtime) respecify(c *container) error {
	rec := c.record.Load()
	path := filepath.Join(r.containerRoot(rec.ID), "config.json")
	s := new(specs.Spec)
	if err := readRecord(path, s); err != nil {
		return err
	}
	devices := s.Linux.Resources.Devices
	s.Linux.Resources = spec.Resources(rec.Config.value.GetLinux().GetResources(), r.node)
	s.Linux.Resources.Devices = devices
	return spec.MarshalBundle(s, r.containerRoot(rec.ID))
}
