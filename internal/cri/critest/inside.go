// SPDX-License-Identifier: Apache-2.0

package critest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func testExec(t *testing.T, s Suite, image string) {
	p := s.pod(t)
	id := p.start(p.container(image, "sleep"))
	got := p.exec(id, "then", "echo", "out", ";", "err", "bad", ";", "pwd", ";", "exit", "5")
	if string(got.GetStdout()) != "out\n/data\n" || string(got.GetStderr()) != "bad\n" || got.GetExitCode() != 5 {
		t.Errorf("ExecSync: %v", got)
	}
	_, err := s.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"/box", "stubborn"}, Timeout: 1})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("ExecSync past its timeout: %v, want DeadlineExceeded", err)
	}
	if _, err := s.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"/missing"}}); err == nil ||
		!strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("ExecSync of a missing program: %v", err)
	}
	eventually(t, "killed commands leave", func() bool { return strings.TrimSpace(string(p.exec(id, "pids").GetStdout())) == "2" })
	if _, err := s.Runtime.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"/box", "id"}}); err == nil {
		t.Error("ExecSync in an exited container succeeds")
	}
}

func testSecurity(t *testing.T, s Suite, image string) {
	p := s.pod(t)
	run := func(change func(*runtimeapi.LinuxContainerSecurityContext), args ...string) string {
		t.Helper()
		c := p.container(image, args...)
		change(c.GetLinux().GetSecurityContext())
		return strings.TrimSpace(p.run(c))
	}
	type security = runtimeapi.LinuxContainerSecurityContext
	for _, test := range []struct {
		name, want string
		change     func(*security)
		args       []string
	}{
		{"user of the image", "0 0 [0]", func(*security) {}, []string{"id"}},
		{"user by number", "1000 1001 [1001 50000]", func(c *security) { c.RunAsUser = number(1000) }, []string{"id"}},
		{"user by name", "1000 1001 [1001 50000]", func(c *security) { c.RunAsUsername = "alice" }, []string{"id"}},
		{"user and group", "1000 7 [7 50000]", func(c *security) { c.RunAsUser, c.RunAsGroup = number(1000), number(7) }, []string{"id"}},
		{"strict groups", "1000 1001 [99 1001]", func(c *security) {
			c.RunAsUser, c.SupplementalGroups, c.SupplementalGroupsPolicy = number(1000), []int64{99}, runtimeapi.SupplementalGroupsPolicy_Strict
		}, []string{"id"}},
		{"merged groups", "1000 1001 [99 1001 50000]", func(c *security) { c.RunAsUser, c.SupplementalGroups = number(1000), []int64{99} }, []string{"id"}},
		{"default capabilities", "CapEff:\t00000000a80425fb", func(*security) {}, []string{"status", "CapEff"}},
		{"no capabilities", "CapEff:\t0000000000000000", func(c *security) {
			c.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}}
		}, []string{"status", "CapEff"}},
		{"one capability", "CapBnd:\t0000000000000400", func(c *security) {
			c.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"NET_BIND_SERVICE"}}
		}, []string{"status", "CapBnd"}},
		{"capability added", "CapEff:\t00000000a80435fb", func(c *security) {
			c.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"NET_ADMIN"}}
		}, []string{"status", "CapEff"}},
		{"new privileges", "NoNewPrivs:\t0", func(*security) {}, []string{"status", "NoNewPrivs"}},
		{"no new privileges", "NoNewPrivs:\t1", func(c *security) { c.NoNewPrivs = true }, []string{"status", "NoNewPrivs"}},
		{"no seccomp", "Seccomp:\t0", func(*security) {}, []string{"status", "Seccomp"}},
		{"default seccomp", "Seccomp:\t2", func(c *security) {
			c.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
		}, []string{"status", "Seccomp"}},
		{"masked path", "", func(c *security) { c.MaskedPaths = []string{"/data"} }, []string{"ls", "/data"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := run(test.change, test.args...); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	t.Run("read-only root", func(t *testing.T) {
		c := p.container(image, "write", "/data/new", "x")
		c.GetLinux().GetSecurityContext().ReadonlyRootfs = true
		if st := p.exited(p.start(c)); st.GetExitCode() != 1 || !strings.Contains(p.log(c, "stderr"), "read-only file system") {
			t.Errorf("writing ended with %d: %s", st.GetExitCode(), p.log(c, "stderr"))
		}
	})
	t.Run("privileged", func(t *testing.T) {
		p := s.pod(t, func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
		c := p.container(image, "then", "mounts", "/sys", ";", "ls", "/dev")
		c.GetLinux().GetSecurityContext().Privileged = true
		out := p.run(c)
		if !strings.Contains(out, " rw,") || !strings.Contains(out, "null\n") {
			t.Errorf("a privileged container sees %s", out)
		}
	})
}

func number(n int64) *runtimeapi.Int64Value { return &runtimeapi.Int64Value{Value: n} }

func testNamespaces(t *testing.T, s Suite, image string) {
	p := s.pod(t)
	if got := p.run(p.container(image, "then", "hostname", ";", "pids", ";", "cat", "/etc/resolv.conf")); got != "pod-host\n1\nsearch svc.local\nnameserver 10.0.0.10\noptions ndots:5\n" {
		t.Errorf("in a pod of its own: %q", got)
	}
	t.Run("shared PID namespace", func(t *testing.T) {
		p := s.pod(t, func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
		})
		p.start(p.container(image, "sleep"))
		if got := p.run(p.container(image, "pids")); got != "3\n" { // pause, sleep and itself
			t.Errorf("%s processes, want 3", got)
		}
	})
	t.Run("target's PID namespace", func(t *testing.T) {
		target := p.start(p.container(image, "sleep"))
		c := p.container(image, "pids")
		c.GetLinux().GetSecurityContext().NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET, TargetId: target}
		if got := p.run(c); got != "2\n" {
			t.Errorf("%s processes, want 2", got)
		}
	})
	t.Run("host's network", func(t *testing.T) {
		p := s.pod(t, func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
		})
		want, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		if got := p.run(p.container(image, "hostname")); got != want+"\n" {
			t.Errorf("host name %q, want %q", got, want)
		}
	})
	t.Run("host's PIDs and IPC", func(t *testing.T) {
		p := s.pod(t, func(c *runtimeapi.PodSandboxConfig) {
			o := c.Linux.SecurityContext.NamespaceOptions
			o.Pid, o.Ipc = runtimeapi.NamespaceMode_NODE, runtimeapi.NamespaceMode_NODE
		})
		if got := strings.TrimSpace(p.run(p.container(image, "pids"))); len(got) < 2 {
			t.Errorf("only %s processes on the host", got)
		}
	})
	t.Run("sysctls", func(t *testing.T) {
		p := s.pod(t, func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.Sysctls = map[string]string{"kernel.shm_rmid_forced": "1", "net.ipv4.ip_local_port_range": "1024 65000"}
		})
		if got := p.run(p.container(image, "then", "cat", "/proc/sys/kernel/shm_rmid_forced", ";", "cat", "/proc/sys/net/ipv4/ip_local_port_range")); got != "1\n1024\t65000\n" {
			t.Errorf("sysctls %q", got)
		}
	})
	t.Run("user namespace", func(t *testing.T) {
		ids := []*runtimeapi.IDMapping{{HostId: 200000, ContainerId: 0, Length: 65536}}
		p := s.pod(t, func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}
		})
		if got := p.run(p.container(image, "then", "id", ";", "cat", "/proc/self/uid_map", ";", "write", "/data/b", "x", ";", "cat", "/data/a")); !strings.HasPrefix(got, "0 0 [0]\n         0     200000      65536\n") {
			t.Errorf("in a user namespace: %q", got)
		}
	})
}

func testMounts(t *testing.T, s Suite, image string) {
	p := s.pod(t)
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	with := func(change func(*runtimeapi.Mount), args ...string) *runtimeapi.ContainerConfig {
		c := p.container(image, args...)
		m := &runtimeapi.Mount{ContainerPath: "/mnt/vol", HostPath: host}
		change(m)
		c.Mounts = []*runtimeapi.Mount{m}
		return c
	}
	if got := p.run(with(func(*runtimeapi.Mount) {}, "then", "cat", "/mnt/vol/file", ";", "write", "/mnt/vol/new", "x")); got != "from the host\n" {
		t.Errorf("read %q", got)
	}
	if _, err := os.Stat(filepath.Join(host, "new")); err != nil {
		t.Error(err)
	}
	for _, recursive := range []bool{false, true} {
		c := with(func(m *runtimeapi.Mount) { m.Readonly, m.RecursiveReadOnly = true, recursive }, "write", "/mnt/vol/other", "x")
		if st := p.exited(p.start(c)); st.GetExitCode() != 1 || !strings.Contains(p.log(c, "stderr"), "read-only file system") {
			t.Errorf("writing to a read-only mount (recursive: %v) ended with %d", recursive, st.GetExitCode())
		}
	}
	if got := p.run(with(func(m *runtimeapi.Mount) {
		m.HostPath, m.Readonly, m.Image = "", true, &runtimeapi.ImageSpec{Image: image}
	}, "cat", "/mnt/vol/data/a")); got != "from the image\n" {
		t.Errorf("from an image volume: %q", got)
	}
	sub := with(func(m *runtimeapi.Mount) {
		m.HostPath, m.Readonly, m.Image, m.ImageSubPath = "", true, &runtimeapi.ImageSpec{Image: image}, "data"
	}, "cat", "/mnt/vol/a")
	id := p.start(sub)
	p.exited(id)
	if got := p.log(sub, "stdout"); got != "from the image\n" {
		t.Errorf("from a part of an image volume: %q", got)
	}
	have, err := s.Images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.status(id).GetMounts()[0].GetImage().GetImageRef(); got != have.GetImage().GetId() {
		t.Errorf("the status names %q as the volume's image, want %s", got, have.GetImage().GetId())
	}
	writable := with(func(m *runtimeapi.Mount) { m.HostPath, m.Image = "", &runtimeapi.ImageSpec{Image: image} }, "ls")
	if _, err := s.Runtime.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: p.id, SandboxConfig: p.config, Config: writable}); err == nil {
		t.Error("an image volume that is not read-only was taken")
	}
	made := filepath.Join(host, "made")
	p.run(with(func(m *runtimeapi.Mount) { m.HostPath = made }, "ls", "/mnt/vol"))
	if _, err := os.Stat(made); err != nil {
		t.Errorf("a missing source is not made: %v", err)
	}
}

func testResources(t *testing.T, s Suite, image string) {
	p := s.pod(t)
	c := p.container(image, "sleep")
	c.GetLinux().Resources = &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 50000, CpuShares: 512, MemoryLimitInBytes: 64 << 20,
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}}} // as the kubelet does, on machines without a controller, too
	id := p.start(c)
	if got := p.status(id).GetResources().GetLinux().GetMemoryLimitInBytes(); got != 64<<20 {
		t.Errorf("memory limit in the status is %d", got)
	}
	_, err := s.Runtime.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 96 << 20, CpuQuota: 70000, CpuPeriod: 100000},
	})
	if err != nil {
		t.Fatal(err)
	}
	limits := ""
	for _, path := range []string{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"} {
		if got := p.exec(id, "cat", path); got.GetExitCode() == 0 {
			limits = strings.TrimSpace(string(got.GetStdout()))
		}
	}
	if want := fmt.Sprint(96 << 20); limits != want {
		t.Errorf("memory limit in the container is %q, want %s", limits, want)
	}
	if got := p.status(id).GetResources().GetLinux().GetMemoryLimitInBytes(); got != 96<<20 {
		t.Errorf("memory limit in the status is %d after the update", got)
	}
	greedy := p.container(image, "eat", "200")
	greedy.GetLinux().Resources.MemoryLimitInBytes = 32 << 20
	if st := p.exited(p.start(greedy)); st.GetReason() != "OOMKilled" || st.GetExitCode() != 137 {
		t.Errorf("out of memory: %v", st)
	}
}

func testLogs(t *testing.T, s Suite, image string) {
	p := s.pod(t)
	c := p.container(image, "count", "20000")
	if got := strings.Count(p.run(c), "\n"); got != 20000 {
		t.Errorf("%d lines, want 20000", got)
	}
	long := strings.Repeat("x", 100000)
	if got := p.run(p.container(image, "echo", long)); got != long+"\n" {
		t.Errorf("a long line of %d bytes has %d", len(long), len(got))
	}
	c = p.container(image, "sleep")
	id := p.start(c)
	eventually(t, "box writes", func() bool { return p.log(c, "stdout") == "ready\n" })
	path := filepath.Join(p.config.GetLogDirectory(), c.GetLogPath())
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Runtime.ReopenContainerLog(t.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the log is not opened anew: %v", err)
	}
}
