// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// needsCRIU skips a test where containers cannot be saved.
func needsCRIU(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("criu", "check").CombinedOutput(); err != nil {
		t.Skipf("criu does not work on this machine: %v %s", err, out)
	}
}

// execBox runs a verb in a container and returns what it writes.
func execBox(t *testing.T, r *Runtime, id string, args ...string) (string, int32) {
	t.Helper()
	got, err := r.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: append([]string{"/box"}, args...), Timeout: 30})
	if err != nil {
		t.Fatal(err)
	}
	return string(got.GetStdout()) + string(got.GetStderr()), got.GetExitCode()
}

// awaitLog waits until a container has written something.
func awaitLog(t *testing.T, r *Runtime, id, text string) {
	t.Helper()
	got, err := r.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		t.Fatal(err)
	}
	var log []byte
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if log, err = os.ReadFile(got.GetStatus().GetLogPath()); err == nil && strings.Contains(string(log), text) {
			return
		}
	}
	t.Fatalf("no %q in the log: %v\n%s", text, err, log)
}

// ended ends a container with its signal and returns its log.
func ended(t *testing.T, r *Runtime, id string) string {
	t.Helper()
	if _, err := r.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: 30}); err != nil {
		t.Fatal(err)
	}
	st := wait(t, r, id, runtimeapi.ContainerState_CONTAINER_EXITED)
	if st.GetExitCode() != 0 {
		t.Errorf("ended with %d %s %s", st.GetExitCode(), st.GetReason(), st.GetMessage())
	}
	log, err := os.ReadFile(st.GetLogPath())
	if err != nil {
		t.Fatal(err)
	}
	return string(log)
}

// saveable starts a container that remembers what was in a file of its image, and
// has a file of its own.
func saveable(t *testing.T, r *Runtime, sandbox string, pod *runtimeapi.PodSandboxConfig, image string) string {
	t.Helper()
	id := createBox(t, r, sandbox, pod, image, "remember", "/etc/group")
	startBox(t, r, id)
	awaitLog(t, r, id, "ready")
	if out, code := execBox(t, r, id, "write", "/tmp/own", "text"); code != 0 {
		t.Fatal(out)
	}
	return id
}

// restored checks that a container is the one that saveable made.
func restored(t *testing.T, r *Runtime, id string) {
	t.Helper()
	if out, _ := execBox(t, r, id, "cat", "/tmp/own"); out != "text" {
		t.Errorf("a file of the checkpoint has %q", out)
	}
	if out, code := execBox(t, r, id, "cat", "/etc/group"); code == 0 {
		t.Errorf("a file is back that was removed before: %q", out)
	}
	if log := ended(t, r, id); !strings.Contains(log, "stdout F remembered ") || strings.Contains(log, "ready") {
		t.Errorf("the restored container wrote\n%s", log)
	}
}

// TestCheckpoint saves a container, which runs on, and makes another of it in
// another pod, over a restart of the runtime.
func TestCheckpoint(t *testing.T) {
	needsCRIU(t)
	dir := directory(t)
	r := open(t, dir)
	stop := run(t, r)
	image := pull(t, r)
	sandbox, pod := runSandbox(t, r, "before")
	id := saveable(t, r, sandbox, pod, image)
	archive := filepath.Join(t.TempDir(), "checkpoint.tar")
	if _, err := r.CheckpointContainer(t.Context(), &runtimeapi.CheckpointContainerRequest{ContainerId: id, Location: archive}); err != nil {
		t.Fatal(err)
	}
	list, err := exec.Command("tar", "tf", archive).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{configDump, specDump, statusDump, rootfsDiff, deletedFiles, logCopy, imagesDir + "/inventory.img", "dump.log", "stats-dump"} {
		if !slices.Contains(strings.Split(string(list), "\n"), name) {
			t.Errorf("the archive has no %s:\n%s", name, list)
		}
	}
	if dump, err := exec.Command("tar", "xOf", archive, specDump).Output(); err != nil || !strings.Contains(string(dump), `"io.kubernetes.cri.container-name":"box"`) {
		t.Errorf("the specification does not tell whose it is: %v\n%s", err, dump)
	}
	if log := ended(t, r, id); !strings.Contains(log, "remembered ") {
		t.Errorf("the checkpointed container did not run on:\n%s", log)
	}
	removeAll(t, r)

	sandbox, pod = runSandbox(t, r, "after")
	if _, err := r.CreateContainer(t.Context(), restoring(sandbox, pod, archive, &runtimeapi.Mount{HostPath: t.TempDir(), ContainerPath: "/more"})); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("with another mount: %v", err)
	}
	made, err := r.CreateContainer(t.Context(), restoring(sandbox, pod, archive))
	if err != nil {
		t.Fatal(err)
	}
	stop()
	r = open(t, dir)
	run(t, r)
	startBox(t, r, made.GetContainerId())
	restored(t, r, made.GetContainerId())
	removeAll(t, r)
	empty(t, dir)
}

func restoring(sandbox string, pod *runtimeapi.PodSandboxConfig, archive string, mounts ...*runtimeapi.Mount) *runtimeapi.CreateContainerRequest {
	return &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox, SandboxConfig: pod, Config: &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "box"}, Image: &runtimeapi.ImageSpec{Image: archive}, LogPath: "restored.log", Mounts: mounts,
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: pod.GetLinux().GetSecurityContext().GetNamespaceOptions()}},
	}}
}

// TestDiesWhileSaving finds a container paused by a runtime that was killed while it
// saved it: the next lets it go on.
func TestDiesWhileSaving(t *testing.T) {
	dir := directory(t)
	r := open(t, dir)
	stop := run(t, r)
	image := pull(t, r)
	sandbox, pod := runSandbox(t, r, "paused")
	id := createBox(t, r, sandbox, pod, image, "sleep")
	startBox(t, r, id)
	awaitLog(t, r, id, "ready")
	left := filepath.Join(r.containerRoot(id), dumpPrefix+"1", imagesDir)
	if err := errors.Join(os.MkdirAll(left, 0o700), r.cgroups.Freeze(r.containers[id].record.Load().Cgroup, true)); err != nil {
		t.Fatal(err)
	}
	stop()
	r = open(t, dir)
	run(t, r)
	ended(t, r, id)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its files are left: %v", err)
	}
	removeAll(t, r)
	empty(t, dir)
}

// TestCheckpointPod saves a pod of two containers and makes another pod of it,
// which must be described as it is.
func TestCheckpointPod(t *testing.T) {
	needsCRIU(t)
	dir := directory(t)
	r := open(t, dir)
	run(t, r)
	image := pull(t, r)
	sandbox, pod := runSandbox(t, r, "pair")
	config := func(name string, args ...string) *runtimeapi.ContainerConfig {
		return &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: image}, Args: args, LogPath: name + ".log",
			Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: pod.GetLinux().GetSecurityContext().GetNamespaceOptions()}},
		}
	}
	configs := []*runtimeapi.ContainerConfig{config("one", "remember", "/etc/group"), config("two", "remember", "/etc/passwd")}
	var ids []string
	for _, c := range configs {
		got, err := r.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox, SandboxConfig: pod, Config: c})
		if err != nil {
			t.Fatal(err)
		}
		startBox(t, r, got.GetContainerId())
		awaitLog(t, r, got.GetContainerId(), "ready")
		ids = append(ids, got.GetContainerId())
	}
	into := t.TempDir()
	for name, req := range map[string]*runtimeapi.CheckpointPodRequest{
		"no container": {OutputPath: into}, "twice": {OutputPath: into, ContainerIds: []string{ids[0], ids[0]}},
		"options": {OutputPath: into, ContainerIds: ids, Options: map[string]string{"a": "b"}}, "no directory": {OutputPath: into + "/no", ContainerIds: ids},
	} {
		req.PodSandboxId = sandbox
		if _, err := r.CheckpointPod(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.CheckpointPod(t.Context(), &runtimeapi.CheckpointPodRequest{PodSandboxId: sandbox, OutputPath: into, ContainerIds: ids}); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if log := ended(t, r, id); !strings.Contains(log, "remembered ") {
			t.Errorf("a checkpointed container did not run on:\n%s", log)
		}
	}
	removeAll(t, r)

	pod.LogDirectory = t.TempDir()
	other := []*runtimeapi.ContainerConfig{configs[0], config("two", "sleep")}
	if _, err := r.RestorePod(t.Context(), &runtimeapi.RestorePodRequest{CheckpointPath: into, Config: pod, ContainerConfigs: other}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("with another command: %v", err)
	}
	if _, err := r.RestorePod(t.Context(), &runtimeapi.RestorePodRequest{CheckpointPath: into, Config: pod, ContainerConfigs: configs[:1]}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("with one container only: %v", err)
	}
	empty(t, dir)
	got, err := r.RestorePod(t.Context(), &runtimeapi.RestorePodRequest{CheckpointPath: into, Config: pod, ContainerConfigs: configs})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range got.GetRestoredContainers() {
		wait(t, r, c.GetContainerId(), runtimeapi.ContainerState_CONTAINER_CREATED)
		startBox(t, r, c.GetContainerId())
	}
	for _, c := range got.GetRestoredContainers() {
		if log := ended(t, r, c.GetContainerId()); !strings.Contains(log, "remembered ") {
			t.Errorf("restored %s wrote\n%s", c.GetName(), log)
		}
	}
	removeAll(t, r)
	empty(t, dir)
}

// TestNoCRIU answers clearly where the program is not there.
func TestNoCRIU(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	r := &Runtime{}
	_, err := r.CheckpointContainer(t.Context(), &runtimeapi.CheckpointContainerRequest{ContainerId: "c", Location: "/tmp/c.tar"})
	if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "criu is not installed") {
		t.Errorf("checkpoint: %v", err)
	}
	if _, err = r.CheckpointPod(t.Context(), &runtimeapi.CheckpointPodRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("checkpoint of a pod: %v", err)
	}
	if _, err = r.RestorePod(t.Context(), &runtimeapi.RestorePodRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("restore: %v", err)
	}
}
