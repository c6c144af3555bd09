// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func built(t *testing.T, node Node, security *runtimeapi.LinuxContainerSecurityContext, image v1.Config, command ...string) (profile, label, mountLabel string, err error) {
	t.Helper()
	s, err := Build(Input{ID: "id", Sandbox: &runtimeapi.PodSandboxConfig{Linux: &runtimeapi.LinuxPodSandboxConfig{
		SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{Privileged: true}}}, Image: &image, Rootfs: t.TempDir(), Shm: t.TempDir(), Node: node,
		Config: &runtimeapi.ContainerConfig{Command: command, Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: security}}})
	if err != nil {
		return "", "", "", err
	}
	return s.Process.ApparmorProfile, s.Process.SelinuxLabel, s.Linux.MountLabel, nil
}

// TestLabels passes AppArmor's profiles and SELinux's labels on where the kernel
// has them.
func TestLabels(t *testing.T) {
	local := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "strict"}
	open := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	labels := &runtimeapi.SELinuxOption{User: "system_u", Role: "system_r", Type: "container_t", Level: "s0:c1,c2"}
	both := Node{AppArmor: true, SELinux: true}
	byDefault := Node{AppArmor: true, AppArmorDefault: "runtime's", AppArmorLoaded: func(name string) (bool, error) { return name == "strict", nil }}
	runtimes := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	missing := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "nowhere"}
	for _, c := range []struct {
		node                   Node
		security               *runtimeapi.LinuxContainerSecurityContext
		profile, label, mounts string
		err                    string
	}{
		{both, &runtimeapi.LinuxContainerSecurityContext{Apparmor: local}, "strict", "", "", ""},
		{both, &runtimeapi.LinuxContainerSecurityContext{ApparmorProfile: "localhost/strict"}, "strict", "", "", ""}, //nolint:staticcheck // the former form
		{both, &runtimeapi.LinuxContainerSecurityContext{ApparmorProfile: "unconfined"}, "unconfined", "", "", ""},   //nolint:staticcheck // the former form
		{both, &runtimeapi.LinuxContainerSecurityContext{Apparmor: open, ApparmorProfile: "localhost/strict"}, "unconfined", "", "", ""},
		{both, &runtimeapi.LinuxContainerSecurityContext{SelinuxOptions: labels}, "", "system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2", ""},
		{both, &runtimeapi.LinuxContainerSecurityContext{SelinuxOptions: &runtimeapi.SELinuxOption{Type: "spc_t"}}, "", "system_u:system_r:spc_t:s0", "system_u:object_r:container_file_t:s0", ""},
		{byDefault, &runtimeapi.LinuxContainerSecurityContext{}, "runtime's", "", "", ""},
		{byDefault, &runtimeapi.LinuxContainerSecurityContext{Apparmor: runtimes}, "runtime's", "", "", ""},
		{byDefault, &runtimeapi.LinuxContainerSecurityContext{Apparmor: open}, "unconfined", "", "", ""},
		{byDefault, &runtimeapi.LinuxContainerSecurityContext{Apparmor: local}, "strict", "", "", ""},
		{byDefault, &runtimeapi.LinuxContainerSecurityContext{Apparmor: runtimes, Privileged: true}, "", "", "", ""},
		{byDefault, &runtimeapi.LinuxContainerSecurityContext{Privileged: true}, "", "", "", ""},
		{byDefault, &runtimeapi.LinuxContainerSecurityContext{Apparmor: local, Privileged: true}, "strict", "", "", ""},
		{byDefault, &runtimeapi.LinuxContainerSecurityContext{Apparmor: missing}, "", "", "", "failed to generate apparmor spec opts: apparmor profile not found nowhere"},
		{Node{}, &runtimeapi.LinuxContainerSecurityContext{Apparmor: runtimes}, "", "", "", ""},
		{Node{}, &runtimeapi.LinuxContainerSecurityContext{Apparmor: local}, "", "", "", "AppArmor profile specified, but AppArmor is not supported or not enabled"},
		{Node{}, &runtimeapi.LinuxContainerSecurityContext{Apparmor: open, SelinuxOptions: labels}, "", "", "", ""},
	} {
		profile, label, mounts, err := built(t, c.node, c.security, v1.Config{}, "/run")
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v: %v, want %s", c.security, err, c.err)
			}
			continue
		}
		if err != nil || profile != c.profile || label != c.label || mounts != c.mounts {
			t.Errorf("%v: %q, %q, %q, %v; want %q, %q, %q", c.security, profile, label, mounts, err, c.profile, c.label, c.mounts)
		}
	}
}

// TestFormerSeccomp takes the form of clients that do not know the structured one.
func TestFormerSeccomp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "profile.json")
	if err := os.WriteFile(path, []byte(`{"defaultAction": "SCMP_ACT_LOG"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]specs.LinuxSeccompAction{"": "", "unconfined": "", "runtime/default": specs.ActErrno, "localhost/" + path: specs.ActLog} {
		s, err := Build(Input{ID: "id", Image: &v1.Config{}, Rootfs: t.TempDir(), Config: &runtimeapi.ContainerConfig{Command: []string{"/run"}, Linux: &runtimeapi.LinuxContainerConfig{
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{SeccompProfilePath: text}}}}) //nolint:staticcheck // the former form
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		var got specs.LinuxSeccompAction
		if s.Linux.Seccomp != nil {
			got = s.Linux.Seccomp.DefaultAction
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestNoCommand refuses a container that neither its image nor its configuration
// gives a program.
func TestNoCommand(t *testing.T) {
	if _, _, _, err := built(t, Node{}, nil, v1.Config{}); err == nil || err.Error() != "no command specified" {
		t.Errorf("without any command: %v", err)
	}
	for name, image := range map[string]v1.Config{"entrypoint": {Entrypoint: []string{"/a"}}, "arguments": {Cmd: []string{"/a"}}} {
		if _, _, _, err := built(t, Node{}, nil, image); err != nil {
			t.Errorf("an image with an %s: %v", name, err)
		}
	}
}
