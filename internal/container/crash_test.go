// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// crashDir, set in the environment, makes the test executable a runtime that
// runs pods without end until it is killed.
const crashDir = "KAJI_TEST_CRASH_DIR"

// crashRoundsEnv, set in the environment, says how often TestKilledAnywhere kills;
// 200 is what a release is held to.
const crashRoundsEnv = "KAJI_TEST_CRASH_ROUNDS"

func crashRounds(t *testing.T) int {
	t.Helper()
	text := os.Getenv(crashRoundsEnv)
	if text == "" {
		return 15
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", crashRoundsEnv, err)
	}
	return n
}

// TestKilledAnywhere kills a busy runtime, and some monitor with it, at random
// moments; the next one must come up, tell the truth and be able to remove
// everything without a trace.
func TestKilledAnywhere(t *testing.T) {
	dir := directory(t)
	r := open(t, dir)
	stop := run(t, r)
	image := pull(t, r)
	stop()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for round := range crashRounds(t) {
		victim := exec.Command("/proc/self/exe")
		victim.Env = append(os.Environ(), crashDir+"="+dir, "KAJI_TEST_IMAGE="+image)
		victim.Stderr = t.Output()
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.NewTimer(time.Duration(100+random.IntN(500)) * time.Millisecond)
		<-timer.C
		if err := victim.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = victim.Wait() // killed
		if round%3 == 2 {
			killOne(t, dir, random)
		}
		r := open(t, dir)
		stop := run(t, r)
		tellsTruth(t, r, round%3 == 2)
		removeAll(t, r)
		stop()
		empty(t, dir)
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
}

// tellsTruth compares what the runtime says with what is. The code of a container
// may be lost only with its monitor.
func tellsTruth(t *testing.T, r *Runtime, monitorKilled bool) {
	t.Helper()
	list, err := r.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list.GetContainers() {
		rec := r.containers[c.GetId()].record.Load()
		if c.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING && !rec.Pid.alive() {
			wait(t, r, c.GetId(), runtimeapi.ContainerState_CONTAINER_EXITED)
		}
		rec = r.containers[c.GetId()].record.Load()
		name, killed := c.GetMetadata().GetName(), rec.ExitCode == 137
		switch {
		case rec.State != runtimeapi.ContainerState_CONTAINER_EXITED || monitorKilled && rec.Reason == "Unknown":
		case name == "id" && rec.ExitCode == 0 && rec.Reason == "Completed", killed && rec.Reason == "Error":
		default:
			t.Errorf("%s ended with %d %s %s", name, rec.ExitCode, rec.Reason, rec.Message)
		}
	}
}

// killOne kills a monitor.
func killOne(t *testing.T, dir string, random *rand.Rand) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "root/sandboxes/*/record.json"))
	if err != nil || len(paths) == 0 {
		return
	}
	rec := new(sandboxRecord)
	if readRecord(paths[random.IntN(len(paths))], rec) == nil && rec.MonitorPid.alive() {
		_ = unix.Kill(rec.MonitorPid.Pid, unix.SIGKILL)
	}
}

// crash runs pods, several at a time, for as long as it lives.
func crash(dir, image string) {
	r, err := New(Config{Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), CgroupRoot: group(dir)})
	if err != nil {
		fmt.Fprintln(os.Stderr, "the victim cannot start:", err)
		os.Exit(1)
	}
	ctx := context.Background()
	var workers sync.WaitGroup
	for worker := range 3 {
		workers.Go(func() {
			for i := 0; ; i++ {
				if err := crashPod(ctx, r, image, fmt.Sprintf("pod-%d-%d", worker, i)); err != nil {
					fmt.Fprintln(os.Stderr, "the victim:", strings.TrimSpace(err.Error()))
				}
			}
		})
	}
	workers.Wait()
}

func crashPod(ctx context.Context, r *Runtime, image, name string) error {
	modes := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	pod := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name}, Hostname: name,
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: modes}},
	}
	sandbox, err := r.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: pod})
	if err != nil {
		return err
	}
	for _, verb := range []string{"sleep", "id"} {
		c, err := r.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox.GetPodSandboxId(), SandboxConfig: pod,
			Config: &runtimeapi.ContainerConfig{
				Metadata: &runtimeapi.ContainerMetadata{Name: verb}, Image: &runtimeapi.ImageSpec{Image: image}, Args: []string{verb},
				Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: modes}},
			}})
		if err != nil {
			return err
		}
		if _, err := r.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: c.GetContainerId()}); err != nil {
			return err
		}
	}
	_, err = r.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox.GetPodSandboxId()})
	return err
}
