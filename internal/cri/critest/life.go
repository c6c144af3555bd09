// SPDX-License-Identifier: Apache-2.0

package critest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func testStatus(t *testing.T, s Suite, _ string) {
	v, err := s.Runtime.Version(t.Context(), &runtimeapi.VersionRequest{})
	if err != nil || v.GetRuntimeApiVersion() != "v1" || v.GetRuntimeName() == "" {
		t.Fatalf("Version: %v, %v", v, err)
	}
	st, err := s.Runtime.Status(t.Context(), &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	ready := map[string]bool{}
	for _, c := range st.GetStatus().GetConditions() {
		ready[c.GetType()] = c.GetStatus()
	}
	if !ready[runtimeapi.RuntimeReady] || !ready[runtimeapi.NetworkReady] {
		t.Errorf("conditions %v, want both ready", ready)
	}
	if !slices.ContainsFunc(st.GetRuntimeHandlers(), func(h *runtimeapi.RuntimeHandler) bool { return h.GetName() == "" }) {
		t.Error("no default runtime handler")
	}
	if _, err := s.Runtime.RuntimeConfig(t.Context(), &runtimeapi.RuntimeConfigRequest{}); err != nil {
		t.Error(err)
	}
}

func testImages(t *testing.T, s Suite, ref string) {
	spec := &runtimeapi.ImageSpec{Image: ref}
	got, err := s.Images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: spec, Verbose: true})
	if err != nil || got.GetImage() == nil {
		t.Fatalf("ImageStatus: %v, %v", got, err)
	}
	img := got.GetImage()
	if !slices.Contains(img.GetRepoTags(), ref) || len(img.GetRepoDigests()) != 1 || img.GetSize() == 0 || img.GetUid().GetValue() != 0 {
		t.Errorf("image %v", img)
	}
	byID, err := s.Images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: img.GetId()}})
	if err != nil || byID.GetImage().GetId() != img.GetId() {
		t.Errorf("ImageStatus by id: %v, %v", byID, err)
	}
	missing, err := s.Images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "localhost:1/none:x"}})
	if err != nil || missing.GetImage() != nil {
		t.Errorf("ImageStatus of nothing: %v, %v", missing, err)
	}
	other := Registry(t, BoxImage(t), "other/box:v2")
	if _, err := s.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: other}}); err != nil {
		t.Fatal(err)
	}
	list, err := s.Images.ListImages(t.Context(), &runtimeapi.ListImagesRequest{})
	if err != nil || len(list.GetImages()) == 0 {
		t.Errorf("ListImages: %v, %v", list, err)
	}
	registry, _, _ := strings.Cut(ref, "/")
	_, err = s.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: registry + "/test/none:x"}})
	if status.Code(err) != codes.NotFound {
		t.Errorf("pulling what is not there: %v, want NotFound", err)
	}
	if _, err := s.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "UPPER:x:y"}}); err == nil {
		t.Error("pulling a malformed reference succeeds")
	}
	info, err := s.Images.ImageFsInfo(t.Context(), &runtimeapi.ImageFsInfoRequest{})
	if err != nil || len(info.GetImageFilesystems()) == 0 || info.GetImageFilesystems()[0].GetUsedBytes().GetValue() == 0 {
		t.Errorf("ImageFsInfo: %v, %v", info, err)
	}
	for range 2 { // removing what is not there succeeds
		if _, err := s.Images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: "localhost:1/none:x"}}); err != nil {
			t.Errorf("RemoveImage: %v", err)
		}
	}
}

func testSandbox(t *testing.T, s Suite, _ string) {
	p := s.pod(t)
	got, err := s.Runtime.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.id, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	st := got.GetStatus()
	if st.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY || st.GetMetadata().GetName() != "pod" || st.GetLabels()["app"] != "box" ||
		st.GetAnnotations()["note"] != "kept" || st.GetCreatedAt() > time.Now().UnixNano() {
		t.Errorf("status %v", st)
	}
	list := func(f *runtimeapi.PodSandboxFilter) int {
		t.Helper()
		got, err := s.Runtime.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{Filter: f})
		if err != nil {
			t.Fatal(err)
		}
		return len(got.GetItems())
	}
	ready := &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}
	if n := list(&runtimeapi.PodSandboxFilter{Id: p.id, State: ready, LabelSelector: map[string]string{"app": "box"}}); n != 1 {
		t.Errorf("%d sandboxes fit the filter, want 1", n)
	}
	if n := list(&runtimeapi.PodSandboxFilter{Id: p.id, LabelSelector: map[string]string{"app": "other"}}); n != 0 {
		t.Errorf("%d sandboxes fit the filter, want 0", n)
	}
	for range 2 {
		if _, err := s.Runtime.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
			t.Fatal(err)
		}
	}
	if n := list(&runtimeapi.PodSandboxFilter{Id: p.id, State: ready}); n != 0 {
		t.Errorf("a stopped sandbox is ready")
	}
	if _, err := s.Runtime.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: "nothing"}); status.Code(err) != codes.NotFound {
		t.Errorf("status of nothing: %v, want NotFound", err)
	}
	if _, err := s.Runtime.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: p.config, RuntimeHandler: "nonexistent"}); err == nil {
		t.Error("an unknown runtime handler is taken")
	}
}

func testContainer(t *testing.T, s Suite, image string) {
	p := s.pod(t)
	config := p.container(image, "then", "echo", "hello", ";", "err", "oops", ";", "pwd", ";", "env", "FROM", ";", "env", "OWN", ";", "exit", "3")
	config.Envs = []*runtimeapi.KeyValue{{Key: "OWN", Value: []byte("pod")}}
	id := p.create(config)
	if st := p.status(id); st.GetState() != runtimeapi.ContainerState_CONTAINER_CREATED || st.GetStartedAt() != 0 {
		t.Errorf("created: %v", st)
	}
	if _, err := s.Runtime.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	st := p.exited(id)
	if st.GetExitCode() != 3 || st.GetReason() != "Error" || st.GetFinishedAt() < st.GetStartedAt() || st.GetStartedAt() < st.GetCreatedAt() {
		t.Errorf("exited: %v", st)
	}
	if st.GetImageId() == "" || st.GetImageRef() == "" || st.GetLogPath() == "" {
		t.Errorf("status lacks the image or the log: %v", st)
	}
	if got, want := p.log(config, "stdout"), "hello\n/data\nimage\npod\n"; got != want {
		t.Errorf("stdout %q, want %q", got, want)
	}
	if got, want := p.log(config, "stderr"), "oops\n"; got != want {
		t.Errorf("stderr %q, want %q", got, want)
	}
	if _, err := s.Runtime.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err == nil {
		t.Error("an exited container starts again")
	}
	list, err := s.Runtime.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: p.id}})
	if err != nil || len(list.GetContainers()) != 1 || list.GetContainers()[0].GetId() != id {
		t.Errorf("ListContainers: %v, %v", list, err)
	}
	for range 2 {
		if _, err := s.Runtime.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: id}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Runtime.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id}); status.Code(err) != codes.NotFound {
		t.Errorf("status of a removed container: %v, want NotFound", err)
	}
	if st := p.exited(p.start(p.container(image, "exit", "0"))); st.GetReason() != "Completed" {
		t.Errorf("reason %q, want Completed", st.GetReason())
	}
}

func testFailures(t *testing.T, s Suite, image string) {
	p := s.pod(t)
	config := p.container(image)
	config.Command = []string{"/missing"}
	id := p.create(config)
	_, err := s.Runtime.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id})
	if err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("starting a missing program: %v", err)
	}
	if st := p.status(id); st.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED || st.GetExitCode() == 0 {
		t.Errorf("after a failed start: %v", st)
	}
	create := func(change func(*runtimeapi.ContainerConfig)) error {
		c := p.container(image, "sleep")
		change(c)
		_, err := s.Runtime.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: p.config})
		return err
	}
	if err := create(func(c *runtimeapi.ContainerConfig) { c.Image.Image = "localhost:1/none:x" }); err == nil {
		t.Error("a container of a missing image is created")
	}
	if err := create(func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.RunAsUsername = "nobody-here" }); err == nil {
		t.Error("a container of an unknown user is created")
	}
	if err := create(func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.Privileged = true }); err == nil {
		t.Error("a privileged container is created in an unprivileged sandbox")
	}
	if _, err := s.Runtime.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: "nothing"}); err != nil {
		t.Errorf("stopping nothing: %v", err)
	}
}

func testStop(t *testing.T, s Suite, image string) {
	p := s.pod(t)
	config := p.container(image, "sleep")
	kind := p.start(config)
	// The program must have set its handler before the signal comes.
	eventually(t, "box catches SIGTERM", func() bool { return p.log(config, "stdout") == "ready\n" })
	if _, err := s.Runtime.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: kind, Timeout: 20}); err != nil {
		t.Fatal(err)
	}
	if st := p.status(kind); st.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED || st.GetExitCode() != 0 {
		t.Errorf("stopped: %v", st)
	}
	config = p.container(image, "stubborn")
	stubborn := p.start(config)
	eventually(t, "box ignores SIGTERM", func() bool { return p.log(config, "stdout") == "ready\n" })
	if _, err := s.Runtime.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: stubborn, Timeout: 1}); err != nil {
		t.Fatal(err)
	}
	if st := p.status(stubborn); st.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED || st.GetExitCode() != 137 {
		t.Errorf("killed: %v", st)
	}
	left := p.start(p.container(image, "sleep"))
	if _, err := s.Runtime.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		t.Fatal(err)
	}
	if st := p.status(left); st.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
		t.Errorf("a container outlives its sandbox: %v", st)
	}
}
