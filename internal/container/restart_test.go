// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/cri/critest"
)

// pull brings box into the runtime.
func pull(t testing.TB, r *Runtime) string {
	t.Helper()
	ref := critest.Registry(t, critest.BoxImage(t), "test/box:v1")
	if _, err := r.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}}); err != nil {
		t.Fatal(err)
	}
	return ref
}

func runSandbox(t testing.TB, r *Runtime, name string) (string, *runtimeapi.PodSandboxConfig) {
	t.Helper()
	config := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name}, Hostname: name, LogDirectory: t.TempDir(),
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}},
	}
	got, err := r.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	return got.GetPodSandboxId(), config
}

func createBox(t testing.TB, r *Runtime, sandbox string, pod *runtimeapi.PodSandboxConfig, image string, args ...string) string {
	t.Helper()
	got, err := r.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox, SandboxConfig: pod,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "box"}, Image: &runtimeapi.ImageSpec{Image: image}, Args: args, LogPath: "box.log",
			Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: pod.GetLinux().GetSecurityContext().GetNamespaceOptions()}},
		}})
	if err != nil {
		t.Fatal(err)
	}
	return got.GetContainerId()
}

func startBox(t testing.TB, r *Runtime, id string) {
	t.Helper()
	if _, err := r.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
}

// wait polls the state of a container.
func wait(t testing.TB, r *Runtime, id string, state runtimeapi.ContainerState) *runtimeapi.ContainerStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		got, err := r.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id})
		if err != nil {
			t.Fatal(err)
		}
		if got.GetStatus().GetState() == state {
			return got.GetStatus()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("container is %v, want %v", got.GetStatus().GetState(), state)
		}
	}
}

func removeAll(t testing.TB, r *Runtime) {
	t.Helper()
	list, err := r.ListPodSandbox(context.Background(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list.GetItems() {
		if _, err := r.RemovePodSandbox(context.Background(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.GetId()}); err != nil {
			t.Error(err)
		}
	}
}

// TestContainersSurvive ends a runtime and finds with the next one what runs and
// what was never started.
func TestContainersSurvive(t *testing.T) {
	dir := directory(t)
	r := open(t, dir)
	stop := run(t, r)
	image := pull(t, r)
	sandbox, pod := runSandbox(t, r, "survivor")
	running := createBox(t, r, sandbox, pod, image, "sleep")
	created := createBox(t, r, sandbox, pod, image, "exit", "4")
	startBox(t, r, running)
	pid := r.containers[running].record.Load().Pid
	stop()
	if !pid.alive() {
		t.Fatal("the container died with the runtime")
	}

	r = open(t, dir)
	run(t, r)
	if st := wait(t, r, running, runtimeapi.ContainerState_CONTAINER_RUNNING); st.GetStartedAt() == 0 {
		t.Errorf("found again as %v", st)
	}
	got, err := r.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: running, Cmd: []string{"/box", "echo", "still here"}})
	if err != nil || string(got.GetStdout()) != "still here\n" {
		t.Errorf("ExecSync after the restart: %v, %v", got, err)
	}
	startBox(t, r, created)
	if st := wait(t, r, created, runtimeapi.ContainerState_CONTAINER_EXITED); st.GetExitCode() != 4 {
		t.Errorf("started after the restart: %v", st)
	}
	if _, err := r.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: running, Timeout: 10}); err != nil {
		t.Fatal(err)
	}
	removeAll(t, r)
	empty(t, dir)
}

// TestExitsWhileAway keeps the code of a container that ends while no runtime is there.
func TestExitsWhileAway(t *testing.T) {
	dir := directory(t)
	r := open(t, dir)
	stop := run(t, r)
	image := pull(t, r)
	sandbox, pod := runSandbox(t, r, "away")
	id := createBox(t, r, sandbox, pod, image, "stubborn")
	startBox(t, r, id)
	pid := r.containers[id].record.Load().Pid
	stop()
	if err := unix.Kill(pid.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for pid.alive() {
		unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
	r = open(t, dir)
	run(t, r)
	if st := wait(t, r, id, runtimeapi.ContainerState_CONTAINER_EXITED); st.GetExitCode() != 137 || st.GetReason() != "Error" {
		t.Errorf("ended while away: %v", st)
	}
	removeAll(t, r)
	empty(t, dir)
}

// TestExitNotYetRecorded looks at a dead container before its monitor does.
func TestExitNotYetRecorded(t *testing.T) {
	r := open(t, directory(t))
	run(t, r)
	image := pull(t, r)
	sandbox, pod := runSandbox(t, r, "early")
	id := createBox(t, r, sandbox, pod, image, "sleep")
	startBox(t, r, id)
	pid, monitor := r.containers[id].record.Load().Pid, r.sandboxes[sandbox].record.Load().MonitorPid
	if err := unix.Kill(monitor.Pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for pid.alive() {
		unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
	r.catchUp(sandbox)
	if err := unix.Kill(monitor.Pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if st := wait(t, r, id, runtimeapi.ContainerState_CONTAINER_EXITED); st.GetExitCode() != 137 || st.GetReason() != "Error" {
		t.Errorf("ended under a slow monitor: %v", st)
	}
	removeAll(t, r)
}

// TestMonitorDies ends the pod of a killed monitor, and nothing else.
func TestMonitorDies(t *testing.T) {
	dir := directory(t)
	r := open(t, dir)
	run(t, r)
	image := pull(t, r)
	sandbox, pod := runSandbox(t, r, "victim")
	other, otherPod := runSandbox(t, r, "bystander")
	id, otherID := createBox(t, r, sandbox, pod, image, "sleep"), createBox(t, r, other, otherPod, image, "sleep")
	startBox(t, r, id)
	startBox(t, r, otherID)
	if err := unix.Kill(r.sandboxes[sandbox].record.Load().MonitorPid.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if st := wait(t, r, id, runtimeapi.ContainerState_CONTAINER_EXITED); st.GetExitCode() != 255 || st.GetReason() != "Unknown" {
		t.Errorf("after its monitor: %v", st)
	}
	wait(t, r, otherID, runtimeapi.ContainerState_CONTAINER_RUNNING)
	removeAll(t, r)
	empty(t, dir)
}

// empty demands that no trace of sandboxes and containers is left.
func empty(t *testing.T, dir string) {
	t.Helper()
	for _, sub := range []string{"root/sandboxes", "root/containers", "state/sandboxes", "state/containers", "state/oci", "state/netns"} {
		left, err := names(filepath.Join(dir, sub))
		if err != nil || len(left) > 0 {
			t.Errorf("%s holds %v, %v", sub, left, err)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("mounts are left below %s (%v)", dir, err)
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*" + group(dir) + "/*")
	for _, g := range groups {
		if st, statErr := os.Stat(g); statErr == nil && st.IsDir() {
			t.Errorf("control group %s is left", g)
		}
	}
	if err != nil {
		t.Error(err)
	}
}

// TestStateRunsNothing has the state where Debian and others have it: /run, a
// file system that programs cannot be run from.
func TestStateRunsNothing(t *testing.T) {
	dir := directory(t)
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", state, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(state, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	r := open(t, dir)
	run(t, r)
	image := pull(t, r)
	sandbox, pod := runSandbox(t, r, "noexec")
	id := createBox(t, r, sandbox, pod, image, "exit", "0")
	startBox(t, r, id)
	if got := wait(t, r, id, runtimeapi.ContainerState_CONTAINER_EXITED); got.GetExitCode() != 0 {
		t.Errorf("exit code %d: %s", got.GetExitCode(), got.GetMessage())
	}
	removeAll(t, r)
}
