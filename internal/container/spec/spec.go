// SPDX-License-Identifier: Apache-2.0

// Package spec says what a container of the Container Runtime Interface is in
// the terms of the OCI runtime specification. It is pure, but for looking at
// the host's devices, mounts and kernel: package container calls it and does
// what it says.
package spec

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Input is all that a container's specification follows from.
type Input struct {
	// ID is the container's.
	ID      string
	Sandbox *runtimeapi.PodSandboxConfig
	Config  *runtimeapi.ContainerConfig
	Image   *v1.Config
	// Rootfs is the mounted root file system.
	Rootfs string
	// PausePid is the process that holds the sandbox's namespaces; TargetPid is
	// the one whose PID namespace is joined in mode TARGET.
	PausePid, TargetPid int
	// Hostname of the pod.
	Hostname string
	// ResolvConf, HostnameFile and Hosts are files of the sandbox, mounted where
	// the configuration mounts nothing.
	ResolvConf, HostnameFile, Hosts string
	// Shm is the sandbox's /dev/shm.
	Shm string
	// CgroupsPath is as the OCI wants it, for the driver in use.
	CgroupsPath string
	// SeccompRoot is where relative localhost profiles are.
	SeccompRoot string
	// Node tells what the machine can do.
	Node Node
}

// Node is what the specification must know of the machine.
type Node struct {
	CgroupV2 bool
	// OOMScoreAdjMin is the least value that may be set: without
	// CAP_SYS_RESOURCE that of this process.
	OOMScoreAdjMin int
	// AppArmor tells that the kernel enforces profiles. AppArmorDefault is the one
	// of containers that name none, empty for none; AppArmorLoaded says whether the
	// kernel has a profile, nil lets it find out.
	AppArmor        bool
	AppArmorDefault string
	AppArmorLoaded  func(name string) (bool, error) `json:"-"`
	SELinux         bool
	// SwapAccounting tells that the memory controller limits swap.
	SwapAccounting bool
	// Hugetlb tells that there is a controller of huge pages; limits are left
	// out where there is none.
	Hugetlb bool
	// CDIDirs hold the specifications of the Container Device Interface; later
	// ones take precedence.
	CDIDirs []string
	// Capabilities are those that can be given, by name.
	Capabilities []string
}

// Build returns the specification.
func Build(in Input) (*specs.Spec, error) {
	security := in.Config.GetLinux().GetSecurityContext()
	privileged := security.GetPrivileged()
	if privileged && !in.Sandbox.GetLinux().GetSecurityContext().GetPrivileged() {
		return nil, errors.New("no privileged container allowed in sandbox")
	}
	args, err := command(in)
	if err != nil {
		return nil, err
	}
	user, err := ResolveUser(in.Rootfs, security, in.Image.User)
	if err != nil {
		return nil, err
	}
	capabilities, err := capabilities(security, in.Node.Capabilities)
	if err != nil {
		return nil, err
	}
	mounts, propagation, err := mounts(in)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:  specs.Version,
		Root:     &specs.Root{Path: in.Rootfs, Readonly: security.GetReadonlyRootfs()},
		Mounts:   mounts,
		Hostname: "",
		Process: &specs.Process{
			Terminal: in.Config.GetTty(), Args: args, Env: environment(in), Cwd: workingDir(in),
			User: user, Capabilities: capabilities, NoNewPrivileges: security.GetNoNewPrivs(),
		},
		Linux: &specs.Linux{
			CgroupsPath:       in.CgroupsPath,
			Resources:         Resources(in.Config.GetLinux().GetResources(), in.Node),
			RootfsPropagation: propagation,
			Namespaces:        namespaces(in),
		},
	}
	score := max(int(in.Config.GetLinux().GetResources().GetOomScoreAdj()), in.Node.OOMScoreAdjMin)
	s.Process.OOMScoreAdj = &score
	if privileged {
		s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	} else {
		s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
		s.Linux.MaskedPaths = security.GetMaskedPaths()
		s.Linux.ReadonlyPaths = security.GetReadonlyPaths()
	}
	if err := addDevices(s, in.Config.GetDevices(), privileged); err != nil {
		return nil, err
	}
	if err := addProfiles(s, in); err != nil {
		return nil, err
	}
	if err := addCDIDevices(s, in.Config, in.Node.CDIDirs); err != nil {
		return nil, err
	}
	return s, nil
}

// command joins what the pod says with what the image says: an own command
// replaces the image's entrypoint and its arguments, own arguments replace
// only those.
func command(in Input) ([]string, error) {
	entrypoint, args := in.Config.GetCommand(), in.Config.GetArgs()
	if len(entrypoint) == 0 {
		if len(args) == 0 {
			args = in.Image.Cmd
		}
		entrypoint = in.Image.Entrypoint
	}
	if len(entrypoint)+len(args) == 0 {
		return nil, errors.New("no command specified")
	}
	return slices.Concat(entrypoint, args), nil
}

func workingDir(in Input) string {
	for _, dir := range []string{in.Config.GetWorkingDir(), in.Image.WorkingDir} {
		if dir != "" {
			return filepath.Join("/", dir)
		}
	}
	return "/"
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment lists the image's variables, then those of the runtime, then the
// pod's; later ones replace earlier ones of the same name.
func environment(in Input) []string {
	var env []string
	at := map[string]int{}
	set := func(item string) {
		name, _, _ := strings.Cut(item, "=")
		if i, ok := at[name]; ok {
			env[i] = item
			return
		}
		at[name] = len(env)
		env = append(env, item)
	}
	set(defaultPath)
	for _, item := range in.Image.Env {
		set(item)
	}
	if in.Config.GetTty() {
		set("TERM=xterm")
	}
	set("HOSTNAME=" + in.Hostname)
	for _, e := range in.Config.GetEnvs() {
		set(e.GetKey() + "=" + string(e.GetValue()))
	}
	return env
}

func namespaces(in Input) []specs.LinuxNamespace {
	modes := in.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	pod := func(kind specs.LinuxNamespaceType, file string) specs.LinuxNamespace {
		return specs.LinuxNamespace{Type: kind, Path: fmt.Sprintf("/proc/%d/ns/%s", in.PausePid, file)}
	}
	list := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	if UserNamespace(modes) != nil {
		list = append(list, pod(specs.UserNamespace, "user"))
	}
	if modes.GetNetwork() != runtimeapi.NamespaceMode_NODE {
		list = append(list, pod(specs.NetworkNamespace, "net"), pod(specs.UTSNamespace, "uts"))
	}
	if modes.GetIpc() != runtimeapi.NamespaceMode_NODE {
		list = append(list, pod(specs.IPCNamespace, "ipc"))
	}
	switch modes.GetPid() {
	case runtimeapi.NamespaceMode_POD:
		list = append(list, pod(specs.PIDNamespace, "pid"))
	case runtimeapi.NamespaceMode_CONTAINER:
		list = append(list, specs.LinuxNamespace{Type: specs.PIDNamespace})
	case runtimeapi.NamespaceMode_TARGET:
		list = append(list, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: fmt.Sprintf("/proc/%d/ns/pid", in.TargetPid)})
	}
	if in.Node.CgroupV2 && !in.Config.GetLinux().GetSecurityContext().GetPrivileged() {
		list = append(list, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return list
}

// UserNamespace is the user namespace that a pod asks for, or nil. (The zero
// value of its mode means that it has one.)
func UserNamespace(modes *runtimeapi.NamespaceOption) *runtimeapi.UserNamespace {
	userns := modes.GetUsernsOptions()
	if userns == nil || userns.GetMode() != runtimeapi.NamespaceMode_POD || len(userns.GetUids()) == 0 {
		return nil
	}
	return userns
}

func mappings(ids []*runtimeapi.IDMapping) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for _, m := range ids {
		out = append(out, specs.LinuxIDMapping{ContainerID: m.GetContainerId(), HostID: m.GetHostId(), Size: m.GetLength()})
	}
	return out
}
