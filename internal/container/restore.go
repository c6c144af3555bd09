// SPDX-License-Identifier: Apache-2.0

package container

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/container/image"
	"kaji/internal/container/oci"
)

// restoreDir, in the directory of a container, is the unpacked checkpoint that it
// will start from.
const restoreDir = "restore"

// criuAnnotation names CRIU's configuration file to libcontainer, criuConfig is
// that of a restored container: it has another address than before, so that its
// connections are no more.
const (
	criuAnnotation = "org.criu.config"
	criuConfig     = "tcp-close\n"
)

// saved is a checkpoint that a container is made of.
type saved struct {
	dir    string
	config checkpointConfig
	spec   *specs.Spec
	// strict refuses a configuration that describes other processes.
	strict bool
}

// isCheckpoint says whether a container shall be made of a checkpoint: it names an
// archive instead of an image. Images are no checkpoints, whatever they hold:
// who may name an image must not choose the rights of its processes.
func isCheckpoint(image *runtimeapi.ImageSpec) bool { return filepath.IsAbs(image.GetImage()) }

// openCheckpoint unpacks a checkpoint for the container id.
func (r *Runtime) openCheckpoint(id, path string) (_ *saved, err error) {
	if err := needCRIU(); err != nil {
		return nil, fmt.Errorf("failed to restore container: %w", err)
	}
	if err := os.MkdirAll(r.containerRoot(id), 0o711); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(r.containerRoot(id)))
		}
	}()
	s := &saved{dir: filepath.Join(r.containerRoot(id), restoreDir), spec: new(specs.Spec)}
	if err := unarchive(s.dir, path); errors.Is(err, fs.ErrNotExist) {
		return nil, status.Errorf(codes.NotFound, "failed to restore from checkpoint: %v", err)
	} else if err != nil {
		return nil, fmt.Errorf("failed to restore from checkpoint %q: %w", path, err)
	}
	err = errors.Join(readRecord(filepath.Join(s.dir, configDump), &s.config), readRecord(filepath.Join(s.dir, specDump), s.spec))
	if err == nil && (s.spec.Process == nil || s.spec.Linux == nil || s.spec.Root == nil) {
		err = errors.New("its specification is not one of a container")
	}
	if err != nil {
		return nil, fmt.Errorf("%q is no checkpoint: %w", path, err)
	}
	return s, nil
}

// base finds the image that the checkpointed container was made of.
func (r *Runtime) base(s *saved) (*image.Image, error) {
	for _, name := range []string{s.config.RootfsImageRef, s.config.RootfsImageName, s.config.RootfsImage} {
		if name == "" {
			continue
		}
		if img, err := r.images.Get(name); err == nil {
			return img, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "failed to restore from checkpoint: its image %q (%s) is not here; pull it first",
		s.config.RootfsImageName, s.config.RootfsImageRef)
}

// expected is a container's configuration with the command that the checkpoint
// has, where it says none.
func (s *saved) expected(config *runtimeapi.ContainerConfig) *runtimeapi.ContainerConfig {
	own := proto.Clone(config).(*runtimeapi.ContainerConfig)
	if !s.strict || len(own.GetCommand())+len(own.GetArgs()) == 0 {
		own.Command, own.Args = s.spec.Process.Args, nil
	}
	return own
}

// unpackFiles brings the changed files of the checkpoint into a container's own
// layer.
func (s *saved) unpackFiles(upper string) error {
	if err := os.MkdirAll(upper, 0o755); err != nil {
		return err
	}
	diff, err := os.Open(filepath.Join(s.dir, rootfsDiff))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer diff.Close()
	if err := unpack(upper, diff); err != nil {
		return fmt.Errorf("restoring the changed files: %w", err)
	}
	var deleted []string
	if err := readRecord(filepath.Join(s.dir, deletedFiles), &deleted); errors.Is(err, fs.ErrNotExist) {
		return nil // containerd has them in the archive
	} else if err != nil {
		return err
	}
	var whiteouts bytes.Buffer
	out := tar.NewWriter(&whiteouts)
	for _, path := range deleted {
		dir, name := filepath.Split(path)
		if err := out.WriteHeader(&tar.Header{Name: filepath.Join(dir, ".wh."+name), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
	}
	if err := out.Close(); err != nil {
		return err
	}
	return unpack(upper, &whiteouts)
}

// merge gives the specification of a new container what belongs to the processes
// that it will have, and checks that they fit.
func (s *saved) merge(to *specs.Spec) error {
	if s.strict {
		if err := sameProcess(to.Process, s.spec.Process); err != nil {
			return status.Errorf(codes.FailedPrecondition, "the checkpoint does not fit: %v", err)
		}
	}
	if to.Process.Terminal != s.spec.Process.Terminal {
		return status.Errorf(codes.FailedPrecondition, "the checkpoint does not fit: terminal is %v, not %v", s.spec.Process.Terminal, to.Process.Terminal)
	}
	if err := sameMounts(to.Mounts, s.spec.Mounts); err != nil {
		return status.Errorf(codes.FailedPrecondition, "the checkpoint does not fit: %v", err)
	}
	score := to.Process.OOMScoreAdj
	to.Process = s.spec.Process
	to.Process.OOMScoreAdj = score
	to.Root.Readonly = s.spec.Root.Readonly
	to.Linux.MaskedPaths, to.Linux.ReadonlyPaths, to.Linux.Seccomp = s.spec.Linux.MaskedPaths, s.spec.Linux.ReadonlyPaths, s.spec.Linux.Seccomp
	path := filepath.Join(s.dir, "criu.conf")
	to.Annotations = map[string]string{criuAnnotation: path}
	return os.WriteFile(path, []byte(criuConfig), 0o600)
}

// sameProcess says in what a process differs from the one that is saved.
func sameProcess(want, have *specs.Process) error {
	sorted := func(list []string) []string { return slices.Sorted(slices.Values(list)) }
	capabilities := func(p *specs.Process) []string {
		if p.Capabilities == nil {
			return nil
		}
		return sorted(p.Capabilities.Bounding)
	}
	switch {
	case !slices.Equal(want.Args, have.Args):
		return fmt.Errorf("its command is %q, not %q", have.Args, want.Args)
	case want.Cwd != have.Cwd:
		return fmt.Errorf("its working directory is %q, not %q", have.Cwd, want.Cwd)
	case want.User.UID != have.User.UID || want.User.GID != have.User.GID || !slices.Equal(want.User.AdditionalGids, have.User.AdditionalGids):
		return fmt.Errorf("its user is %d:%d %v, not %d:%d %v", have.User.UID, have.User.GID, have.User.AdditionalGids,
			want.User.UID, want.User.GID, want.User.AdditionalGids)
	case !slices.Equal(capabilities(want), capabilities(have)):
		return fmt.Errorf("its capabilities are %q, not %q", capabilities(have), capabilities(want))
	case want.NoNewPrivileges != have.NoNewPrivileges:
		return fmt.Errorf("noNewPrivileges is %v, not %v", have.NoNewPrivileges, want.NoNewPrivileges)
	}
	return nil
}

// sameEnvironment says which variable of a configuration the saved process has not.
func (s *saved) sameEnvironment(config *runtimeapi.ContainerConfig) error {
	for _, e := range config.GetEnvs() {
		if item := e.GetKey() + "=" + string(e.GetValue()); !slices.Contains(s.spec.Process.Env, item) {
			return status.Errorf(codes.FailedPrecondition, "the checkpoint does not fit: variable %q is another one", e.GetKey())
		}
	}
	return nil
}

// sameMounts says which place has a mount of the host on one side only: CRIU gives
// each back and makes no other.
func sameMounts(want, have []specs.Mount) error {
	binds := func(list []specs.Mount) (at []string) {
		for _, m := range list {
			if m.Type == "bind" {
				at = append(at, filepath.Clean(m.Destination))
			}
		}
		return at
	}
	for _, at := range binds(have) {
		if !slices.Contains(binds(want), at) {
			return fmt.Errorf("it has a mount at %q, the container has none", at)
		}
	}
	for _, at := range binds(want) {
		if !slices.Contains(binds(have), at) {
			return fmt.Errorf("it has no mount at %q", at)
		}
	}
	return nil
}

// RestorePod makes a pod of a checkpoint that CheckpointPod has written; each
// container goes on when it is started.
func (r *Runtime) RestorePod(ctx context.Context, req *runtimeapi.RestorePodRequest) (_ *runtimeapi.RestorePodResponse, err error) {
	if err := needCRIU(); err != nil {
		return nil, fmt.Errorf("failed to restore pod: %w", err)
	}
	for key := range req.GetOptions() {
		return nil, status.Errorf(codes.InvalidArgument, "unknown restore option %q", key)
	}
	dir := req.GetCheckpointPath()
	pod := checkpointPod{}
	if err := readRecord(filepath.Join(dir, podOptions), &pod); err != nil || !filepath.IsAbs(dir) {
		return nil, status.Errorf(codes.InvalidArgument, "%q is not the absolute path of a checkpoint: %v", dir, err)
	}
	asked := map[string]bool{}
	for _, config := range req.GetContainerConfigs() {
		name := config.GetMetadata().GetName()
		if _, ok := pod.Containers[name]; !ok || asked[name] {
			return nil, status.Errorf(codes.InvalidArgument, "container %q is not in the checkpoint, or named twice", name)
		}
		asked[name] = true
	}
	if len(asked) != len(pod.Containers) || len(asked) == 0 {
		return nil, status.Errorf(codes.InvalidArgument, "the checkpoint has %d containers, %d are named", len(pod.Containers), len(asked))
	}
	made, err := r.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: req.GetConfig(), RuntimeHandler: req.GetRuntimeHandler()})
	if err != nil {
		return nil, err
	}
	out := &runtimeapi.RestorePodResponse{PodSandboxId: made.GetPodSandboxId()}
	defer func() {
		if err != nil {
			_, undo := r.RemovePodSandbox(context.WithoutCancel(ctx), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: made.GetPodSandboxId()})
			err = errors.Join(err, undo)
		}
	}()
	for _, config := range req.GetContainerConfigs() {
		name := config.GetMetadata().GetName()
		id := newID()
		from, err := r.openCheckpoint(id, filepath.Join(dir, name+".tar"))
		if err != nil {
			return nil, err
		}
		from.strict = true
		err = from.sameEnvironment(config)
		if err == nil {
			err = r.createContainer(ctx, id, made.GetPodSandboxId(), config, from)
		}
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(r.containerRoot(id)))
		}
		out.RestoredContainers = append(out.RestoredContainers, &runtimeapi.RestoredContainer{Name: name, ContainerId: id})
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// restore makes the processes of a container of its checkpoint.
func (r *Runtime) restore(ctx context.Context, m *oci.Monitor, c oci.Container) (pid int, err error) {
	dir := filepath.Join(r.containerRoot(c.ID), restoreDir)
	return m.Restore(ctx, c, oci.Images{Dir: filepath.Join(dir, imagesDir), Work: dir})
}
