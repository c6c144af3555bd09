// SPDX-License-Identifier: Apache-2.0

package container

import (
	"testing"

	"github.com/opencontainers/cgroups/systemd"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/container/cgroup"
	"kaji/internal/cri/critest"
)

func withSystemd(t *testing.T) func(*Config) {
	t.Helper()
	if !systemd.IsRunningSystemd() {
		t.Skip("systemd does not run here")
	}
	return func(c *Config) { c.CgroupDriver = "systemd" }
}

// TestCRIWithSystemd holds the runtime to what the CRI demands where systemd makes
// the control groups.
func TestCRIWithSystemd(t *testing.T) {
	r := open(t, directory(t), withSystemd(t))
	run(t, r)
	critest.Run(t, critest.Suite{Runtime: r, Images: r})
}

// TestOutOfMemoryWithSystemd tells containers that the kernel killed for their
// memory from others of the pod, though systemd has removed their scopes.
func TestOutOfMemoryWithSystemd(t *testing.T) {
	r := open(t, directory(t), withSystemd(t))
	run(t, r)
	image := pull(t, r)
	pod := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "oom", Namespace: "default", Uid: "oom"}, Hostname: "oom", LogDirectory: t.TempDir(),
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: "kajitest-oom.slice"},
	}
	t.Cleanup(func() {
		if err := (cgroup.Driver{Systemd: true}).Remove("kajitest.slice"); err != nil {
			t.Error(err)
		}
	})
	got, err := r.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: pod})
	if err != nil {
		t.Fatal(err)
	}
	box := func(name string, memory int64, args ...string) string {
		t.Helper()
		got, err := r.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: got.GetPodSandboxId(), SandboxConfig: pod,
			Config: &runtimeapi.ContainerConfig{
				Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: image}, Args: args, LogPath: name + ".log",
				Linux: &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: memory}},
			}})
		if err != nil {
			t.Fatal(err)
		}
		startBox(t, r, got.GetContainerId())
		return got.GetContainerId()
	}
	other := box("other", 0, "sleep")
	for range 3 { // it is a matter of who is quicker, systemd or the runtime
		greedy := box("greedy", 40<<20, "eat", "200")
		if got := wait(t, r, greedy, runtimeapi.ContainerState_CONTAINER_EXITED); got.GetReason() != "OOMKilled" || got.GetExitCode() != 137 {
			t.Errorf("the greedy one: %s, %d", got.GetReason(), got.GetExitCode())
		}
		if _, err := r.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: greedy}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: other}); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, r, other, runtimeapi.ContainerState_CONTAINER_EXITED); got.GetReason() != "Error" {
		t.Errorf("the other one: %s, %d", got.GetReason(), got.GetExitCode())
	}
	failing := box("failing", 40<<20, "exit", "3")
	if got := wait(t, r, failing, runtimeapi.ContainerState_CONTAINER_EXITED); got.GetReason() != "Error" || got.GetExitCode() != 3 {
		t.Errorf("one that fails by itself: %s, %d", got.GetReason(), got.GetExitCode())
	}
	removeAll(t, r)
}
