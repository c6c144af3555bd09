// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/container/layer"
	"kaji/internal/container/oci"
	"kaji/internal/container/spec"
)

// The files of a checkpoint, by the names that checkpointctl, containerd and
// CRI-O know.
const (
	configDump   = "config.dump" // of which image, and when: checkpointConfig
	specDump     = "spec.dump"   // the OCI specification
	statusDump   = "status.dump" // the CRI's ContainerStatus
	imagesDir    = "checkpoint"  // what CRIU saved
	rootfsDiff   = "rootfs-diff.tar"
	deletedFiles = "deleted.files" // a list of paths
	logCopy      = "container.log"
	podDump      = "pod.dump"    // the CRI's PodSandboxConfig
	podOptions   = "pod.options" // which containers there are: checkpointPod
)

// dumpPrefix begins the name of a directory, in the one of its container, that a
// checkpoint is made in.
const dumpPrefix = "dump-"

// checkpointConfig is config.dump.
type checkpointConfig struct {
	ID              string    `json:"id"`
	Name            string    `json:"name"`
	RootfsImage     string    `json:"rootfsImage,omitempty"`
	RootfsImageRef  string    `json:"rootfsImageRef,omitempty"`
	RootfsImageName string    `json:"rootfsImageName,omitempty"`
	Runtime         string    `json:"runtime,omitempty"`
	Created         time.Time `json:"createdTime"`
	Checkpointed    time.Time `json:"checkpointedTime"`
	RestoredAt      time.Time `json:"restoredTime"`
	Restored        bool      `json:"restored"`
}

// checkpointPod is pod.options.
type checkpointPod struct {
	Version int `json:"version"`
	// Containers are the ids by the names.
	Containers map[string]string `json:"containers"`
}

func needCRIU() error {
	if !oci.HasCRIU() {
		return status.Error(codes.Unimplemented, "checkpoint/restore support not available: "+oci.ErrNoCRIU.Error())
	}
	return nil
}

// CheckpointContainer saves a running container, which runs on, in an archive.
func (r *Runtime) CheckpointContainer(ctx context.Context, req *runtimeapi.CheckpointContainerRequest) (*runtimeapi.CheckpointContainerResponse, error) {
	if err := needCRIU(); err != nil {
		return nil, fmt.Errorf("failed to checkpoint container %q: %w", req.GetContainerId(), err)
	}
	if !filepath.IsAbs(req.GetLocation()) {
		return nil, status.Errorf(codes.InvalidArgument, "the location of a checkpoint must be an absolute path, not %q", req.GetLocation())
	}
	c, err := r.findContainer(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	if timeout := req.GetTimeout(); timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(timeout)*time.Second)
		defer cancel()
	}
	err = r.checkpoint(ctx, []*container{c}, func(*container) string { return req.GetLocation() })
	if err != nil {
		return nil, err
	}
	return &runtimeapi.CheckpointContainerResponse{}, nil
}

// CheckpointPod saves containers of a pod, all of the same moment, in a directory.
func (r *Runtime) CheckpointPod(ctx context.Context, req *runtimeapi.CheckpointPodRequest) (_ *runtimeapi.CheckpointPodResponse, err error) {
	if err := needCRIU(); err != nil {
		return nil, fmt.Errorf("failed to checkpoint pod sandbox %q: %w", req.GetPodSandboxId(), err)
	}
	for key := range req.GetOptions() {
		return nil, status.Errorf(codes.InvalidArgument, "unknown checkpoint option %q", key)
	}
	s, err := r.findSandbox(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	rec := s.record.Load()
	if !rec.Ready {
		return nil, status.Errorf(codes.FailedPrecondition, "sandbox %q is not running", rec.ID)
	}
	dir := req.GetOutputPath()
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 || !filepath.IsAbs(dir) {
		return nil, status.Errorf(codes.InvalidArgument, "the output path %q is not the absolute path of an empty directory", dir)
	}
	list, options, err := r.chosen(rec.ID, req.GetContainerIds())
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, clearDir(dir))
		}
	}()
	err = r.checkpoint(ctx, list, func(c *container) string {
		return filepath.Join(dir, c.record.Load().Config.value.GetMetadata().GetName()+".tar")
	})
	if err != nil {
		return nil, err
	}
	config, err := protojson.Marshal(rec.Config.value)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, podDump), config, 0o600); err != nil {
		return nil, err
	}
	return &runtimeapi.CheckpointPodResponse{}, writeJSON(filepath.Join(dir, podOptions), options)
}

// chosen finds the containers of a pod that a checkpoint is asked of.
func (r *Runtime) chosen(sandbox string, ids []string) (list []*container, pod checkpointPod, err error) {
	pod = checkpointPod{Version: 1, Containers: map[string]string{}}
	if len(ids) == 0 {
		return nil, pod, status.Error(codes.InvalidArgument, "no containers are named")
	}
	for _, id := range ids {
		c, err := r.findContainer(id)
		if err != nil {
			return nil, pod, err
		}
		rec := c.record.Load()
		name := rec.Config.value.GetMetadata().GetName()
		if rec.Sandbox != sandbox {
			return nil, pod, status.Errorf(codes.InvalidArgument, "container %q is not of sandbox %q", id, sandbox)
		}
		if _, ok := pod.Containers[name]; ok {
			return nil, pod, status.Errorf(codes.InvalidArgument, "container %q is named twice", name)
		}
		if filepath.Base(name) != name {
			return nil, pod, status.Errorf(codes.InvalidArgument, "the name of container %q cannot be one of a file", name)
		}
		pod.Containers[name], list = rec.ID, append(list, c)
	}
	return list, pod, nil
}

// clearDir removes what is in a directory.
func clearDir(dir string) error {
	list, err := names(dir)
	for _, name := range list {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, name)))
	}
	return err
}

// checkpoint saves containers, each in the archive that location names. None runs
// before all are saved; all do afterwards, whatever happened.
func (r *Runtime) checkpoint(ctx context.Context, list []*container, location func(*container) string) (err error) {
	var frozen []string
	for _, c := range list {
		c.op.Lock()
		defer c.op.Unlock()
		rec := c.record.Load()
		if rec.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			return status.Errorf(codes.FailedPrecondition, "container %q is in %s state. only %s containers can be checkpointed",
				rec.ID, rec.State, runtimeapi.ContainerState_CONTAINER_RUNNING)
		}
		if spec.UserNamespace(namespaceOptions(c.sandbox.record.Load().Config.value)) != nil {
			return status.Errorf(codes.FailedPrecondition, "container %q: a checkpoint of a pod with a user namespace is not supported", rec.ID)
		}
	}
	dirs := make([]string, len(list))
	defer func() {
		for i, path := range frozen {
			if thawed := r.cgroups.Freeze(path, false); thawed != nil {
				err = errors.Join(err, fmt.Errorf("resuming container %q: %w", list[i].record.Load().ID, thawed))
			}
		}
		for _, dir := range dirs {
			if dir != "" {
				err = errors.Join(err, os.RemoveAll(dir))
			}
		}
	}()
	for _, c := range list {
		path := c.record.Load().Cgroup
		frozen = append(frozen, path)
		if err := r.cgroups.Freeze(path, true); err != nil {
			return fmt.Errorf("pausing container %q: %w", c.record.Load().ID, err)
		}
	}
	for i, c := range list {
		if dirs[i], err = os.MkdirTemp(r.containerRoot(c.record.Load().ID), dumpPrefix); err != nil {
			return err
		}
		if err := r.dump(ctx, c, dirs[i]); err != nil {
			return fmt.Errorf("checkpointing container %q failed: %w", c.record.Load().ID, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	for i, c := range list {
		if err := archive(location(c), dirs[i]); err != nil {
			return fmt.Errorf("checkpointing container %q failed: %w", c.record.Load().ID, err)
		}
	}
	return nil
}

// dump writes all that belongs to a checkpoint of a paused container.
func (r *Runtime) dump(ctx context.Context, c *container, dir string) error {
	rec := c.record.Load()
	images := filepath.Join(dir, imagesDir)
	if err := os.Mkdir(images, 0o700); err != nil {
		return err
	}
	if err := r.helper.Checkpoint(ctx, r.ociRoot(), rec.ID, oci.Images{Dir: images, Work: dir}); err != nil {
		return err
	}
	if err := r.dumpFiles(rec, dir); err != nil {
		return fmt.Errorf("saving the changed files: %w", err)
	}
	name := rec.Config.value.GetImage().GetUserSpecifiedImage()
	if name == "" {
		name = rec.Config.value.GetImage().GetImage()
	}
	config := checkpointConfig{
		ID: rec.ID, Name: rec.Config.value.GetMetadata().GetName(), RootfsImage: name, RootfsImageRef: rec.ImageRef, RootfsImageName: name,
		Runtime: "kaji", Created: rec.Created, Checkpointed: time.Now(),
	}
	s := new(specs.Spec)
	if err := readRecord(filepath.Join(r.containerRoot(rec.ID), "config.json"), s); err != nil {
		return err
	}
	s.Annotations = describing(c)
	err := errors.Join(writeJSON(filepath.Join(dir, configDump), config), writeJSON(filepath.Join(dir, statusDump), containerStatus(rec)),
		writeJSON(filepath.Join(dir, specDump), s))
	if err != nil || rec.LogPath == "" {
		return err
	}
	if err := copyFile(filepath.Join(dir, logCopy), rec.LogPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// describing tells whose a specification is, by the names that containerd gives.
func describing(c *container) map[string]string {
	rec, pod := c.record.Load(), c.sandbox.record.Load()
	metadata := pod.Config.value.GetMetadata()
	return map[string]string{
		"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": rec.Config.value.GetMetadata().GetName(),
		"io.kubernetes.cri.image-name": rec.Config.value.GetImage().GetUserSpecifiedImage(), "io.kubernetes.cri.sandbox-id": pod.ID,
		"io.kubernetes.cri.sandbox-name": metadata.GetName(), "io.kubernetes.cri.sandbox-namespace": metadata.GetNamespace(),
		"io.kubernetes.cri.sandbox-uid": metadata.GetUid(),
	}
}

// dumpFiles writes what the container changed in its root file system.
func (r *Runtime) dumpFiles(rec *containerRecord, dir string) error {
	out, err := os.Create(filepath.Join(dir, rootfsDiff))
	if err != nil {
		return err
	}
	defer out.Close()
	var lower []string // the topmost first
	for _, id := range slices.Backward(rec.Layers) {
		lower = append(lower, r.images.LayerPath(id))
	}
	deleted, err := layer.Pack(out, filepath.Join(r.containerRoot(rec.ID), "upper"), lower, filepath.Join(r.containerState(rec.ID), "rootfs"))
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, deletedFiles), deleted)
}

// thaw ends what a checkpoint was doing when the runtime died.
func (r *Runtime) thaw(rec *containerRecord) error {
	left, err := filepath.Glob(filepath.Join(r.containerRoot(rec.ID), dumpPrefix+"*"))
	if err != nil || len(left) == 0 {
		return err
	}
	if rec.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
		err = r.cgroups.Freeze(rec.Cgroup, false)
	}
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

func writeJSON(path string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o600)
}
