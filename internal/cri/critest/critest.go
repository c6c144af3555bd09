// SPDX-License-Identifier: Apache-2.0

// Package critest holds what the Container Runtime Interface demands of a
// runtime, as one suite of tests for every implementation of package cri: the
// embedded runtime in process, the same over its socket, and any other. It
// needs root, and no network but the loopback.
package critest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/cri"
)

// Suite is a runtime under test.
type Suite struct {
	Runtime cri.Runtime
	Images  cri.Images
	// CgroupParent is where pods are put; empty leaves it to the runtime.
	CgroupParent string
}

// Run runs the suite.
func Run(t *testing.T, s Suite) {
	image := s.pull(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, Suite, string)
	}{
		{"status", testStatus},
		{"images", testImages},
		{"sandbox", testSandbox},
		{"container", testContainer},
		{"failures", testFailures},
		{"stop", testStop},
		{"exec", testExec},
		{"security", testSecurity},
		{"namespaces", testNamespaces},
		{"mounts", testMounts},
		{"resources", testResources},
		{"logs", testLogs},
		{"streams", testStreams},
		{"open input", testLeavesInputOpen},
		{"events", testEvents},
		{"stats", testStats},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s, image) })
	}
}

// BoxImage builds an image of the program box.
func BoxImage(t testing.TB) v1.Image {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "box"), "kaji/internal/cri/critest/box")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building box: %v\n%s", err, out)
	}
	files := map[string]file{
		"box":        {mode: 0o755, content: read(t, filepath.Join(dir, "box"))},
		"etc/passwd": {mode: 0o644, content: []byte("root:x:0:0::/:/box\nalice:x:1000:1001::/:/box\n")},
		"etc/group":  {mode: 0o644, content: []byte("root:x:0:\nusers:x:1001:\nextra:x:50000:alice\n")},
		"data/a":     {mode: 0o644, content: []byte("from the image\n")},
		"tmp/":       {mode: 0o1777},
	}
	data := archive(t, files)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.Architecture, config.OS = runtimeArch, "linux"
	config.Config = v1.Config{
		Entrypoint: []string{"/box"}, Cmd: []string{"sleep"}, Env: []string{"PATH=/", "FROM=image"}, WorkingDir: "/data",
	}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		t.Fatal(err)
	}
	return image
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// Registry serves an image on the loopback and returns a reference to it.
func Registry(t testing.TB, image v1.Image, repository string) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(discard)))
	t.Cleanup(server.Close)
	ref := strings.TrimPrefix(server.URL, "http://") + "/" + repository
	target, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(target, image); err != nil {
		t.Fatal(err)
	}
	return ref
}

// pull brings box into the runtime under test.
func (s Suite) pull(t *testing.T) string {
	t.Helper()
	ref := Registry(t, BoxImage(t), "test/box:v1")
	got, err := s.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	if err != nil {
		t.Fatalf("PullImage: %v", err)
	}
	if got.GetImageRef() == "" {
		t.Fatal("PullImage returns no reference")
	}
	return ref
}

// pod is a sandbox of a test, removed with it.
type pod struct {
	s      Suite
	t      *testing.T
	id     string
	config *runtimeapi.PodSandboxConfig
}

func (s Suite) pod(t *testing.T, change ...func(*runtimeapi.PodSandboxConfig)) *pod {
	t.Helper()
	config := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "pod", Namespace: "default", Uid: fmt.Sprint("uid-", time.Now().UnixNano())},
		Hostname: "pod-host", LogDirectory: t.TempDir(), Labels: map[string]string{"app": "box"},
		Annotations: map[string]string{"note": "kept"},
		DnsConfig:   &runtimeapi.DNSConfig{Servers: []string{"10.0.0.10"}, Searches: []string{"svc.local"}, Options: []string{"ndots:5"}},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: s.CgroupParent,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{
				Pid: runtimeapi.NamespaceMode_CONTAINER,
			}},
		},
	}
	for _, c := range change {
		c(config)
	}
	got, err := s.Runtime.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatalf("RunPodSandbox: %v", err)
	}
	p := &pod{s, t, got.GetPodSandboxId(), config}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if _, err := s.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
			t.Errorf("StopPodSandbox: %v", err)
		}
		if _, err := s.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
			t.Errorf("RemovePodSandbox: %v", err)
		}
	})
	return p
}

// config is a container's, running box with the given arguments.
func (p *pod) container(image string, args ...string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "box"}, Image: &runtimeapi.ImageSpec{Image: image},
		Args: args, LogPath: fmt.Sprintf("box_%d.log", time.Now().UnixNano()), Labels: map[string]string{"app": "box"},
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources: &runtimeapi.LinuxContainerResources{},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: p.config.GetLinux().GetSecurityContext().GetNamespaceOptions(),
			},
		},
	}
}

func (p *pod) create(config *runtimeapi.ContainerConfig) string {
	p.t.Helper()
	got, err := p.s.Runtime.CreateContainer(p.t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: p.id, Config: config, SandboxConfig: p.config})
	if err != nil {
		p.t.Fatalf("CreateContainer: %v", err)
	}
	return got.GetContainerId()
}

func (p *pod) start(config *runtimeapi.ContainerConfig) string {
	p.t.Helper()
	id := p.create(config)
	if _, err := p.s.Runtime.StartContainer(p.t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		p.t.Fatalf("StartContainer: %v", err)
	}
	return id
}

func (p *pod) status(id string) *runtimeapi.ContainerStatus {
	p.t.Helper()
	got, err := p.s.Runtime.ContainerStatus(p.t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		p.t.Fatalf("ContainerStatus: %v", err)
	}
	return got.GetStatus()
}

// exited waits for a container's end.
func (p *pod) exited(id string) *runtimeapi.ContainerStatus {
	p.t.Helper()
	var status *runtimeapi.ContainerStatus
	eventually(p.t, "the container exits", func() bool {
		status = p.status(id)
		return status.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED
	})
	return status
}

// run runs box to its end and returns what it wrote to standard output.
func (p *pod) run(config *runtimeapi.ContainerConfig) string {
	p.t.Helper()
	id := p.start(config)
	status := p.exited(id)
	out := p.log(config, "stdout")
	if status.GetExitCode() != 0 {
		p.t.Fatalf("box %v ended with %d (%s %s); output:\n%s%s", config.GetArgs(), status.GetExitCode(), status.GetReason(), status.GetMessage(), out, p.log(config, "stderr"))
	}
	return out
}

// log returns what a container wrote to one stream.
func (p *pod) log(config *runtimeapi.ContainerConfig, stream string) string {
	p.t.Helper()
	raw, err := os.ReadFile(filepath.Join(p.config.GetLogDirectory(), config.GetLogPath()))
	if err != nil {
		p.t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(raw)) {
		parts := strings.SplitN(line, " ", 4)
		if len(parts) != 4 {
			p.t.Fatalf("log line %q is not in the format of the CRI", line)
		}
		if _, err := time.Parse(time.RFC3339Nano, parts[0]); err != nil {
			p.t.Fatalf("log line %q: %v", line, err)
		}
		if parts[1] != stream {
			continue
		}
		if parts[2] == "P" {
			parts[3] = strings.TrimSuffix(parts[3], "\n")
		}
		out.WriteString(parts[3])
	}
	return out.String()
}

func (p *pod) exec(id string, args ...string) *runtimeapi.ExecSyncResponse {
	p.t.Helper()
	got, err := p.s.Runtime.ExecSync(p.t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: append([]string{"/box"}, args...), Timeout: 20})
	if err != nil {
		p.t.Fatalf("ExecSync %v: %v", args, err)
	}
	return got
}

// eventually polls a condition, for what happens outside this process.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}
