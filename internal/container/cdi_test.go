// SPDX-License-Identifier: Apache-2.0

package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestCDI gives a container devices of the Container Device Interface: one by
// the field, one by an annotation, none that nobody specifies.
func TestCDI(t *testing.T) {
	dir := directory(t)
	specs, shared := filepath.Join(dir, "cdi"), t.TempDir()
	for path, text := range map[string]string{
		filepath.Join(shared, "word"): "from the host",
		filepath.Join(specs, "vendor.json"): `{"cdiVersion": "0.6.0", "kind": "vendor.example/gpu",
			"containerEdits": {"env": ["DRIVER=loaded"]},
			"devices": [
				{"name": "one", "containerEdits": {"env": ["GPU=one"], "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/zero"}]}},
				{"name": "two", "containerEdits": {"env": ["SECOND=two"], "mounts": [
					{"hostPath": "` + shared + `", "containerPath": "/opt/driver", "options": ["ro", "bind"]}]}}]}`,
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := open(t, dir, func(c *Config) { c.CDIDirs = []string{specs} })
	run(t, r)
	image := pull(t, r)
	sandbox, pod := runSandbox(t, r, "devices")
	defer removeAll(t, r)
	create := func(name string, devices []string, annotations map[string]string) (string, error) {
		config := &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: image}, Args: []string{"sleep"},
			LogPath: name + ".log", Annotations: annotations,
			Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: pod.GetLinux().GetSecurityContext().GetNamespaceOptions()}},
		}
		for _, d := range devices {
			config.CDIDevices = append(config.CDIDevices, &runtimeapi.CDIDevice{Name: d})
		}
		got, err := r.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox, SandboxConfig: pod, Config: config})
		return got.GetContainerId(), err
	}
	id, err := create("both", []string{"vendor.example/gpu=one"}, map[string]string{"cdi.k8s.io/claim": "vendor.example/gpu=one,vendor.example/gpu=two"})
	if err != nil {
		t.Fatal(err)
	}
	startBox(t, r, id)
	exec := func(args ...string) string {
		got, err := r.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: append([]string{"/box"}, args...)})
		if err != nil || got.GetExitCode() != 0 {
			t.Errorf("%v: %v, %v", args, got, err)
		}
		return string(got.GetStdout())
	}
	for name, want := range map[string]string{"DRIVER": "loaded", "GPU": "one", "SECOND": "two"} {
		if got := exec("env", name); strings.TrimSpace(got) != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := exec("cat", "/opt/driver/word"); got != "from the host" {
		t.Errorf("the mount shows %q", got)
	}
	if got := exec("ls", "/dev"); !strings.Contains(got, "gpu0") {
		t.Errorf("/dev holds %s", got)
	}
	if _, err := create("none", []string{"vendor.example/gpu=three"}, nil); err == nil || !strings.Contains(err.Error(), "vendor.example/gpu=three") {
		t.Errorf("a device that nobody specifies: %v", err)
	}
	if _, err := create("malformed", nil, map[string]string{"cdi.k8s.io/claim": "gpu"}); err == nil || !strings.Contains(err.Error(), "annotation") {
		t.Errorf("an annotation without a qualified name: %v", err)
	}
}
