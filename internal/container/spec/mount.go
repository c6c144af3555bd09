// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// mounts lists what is mounted in the container, parents before children, and
// the propagation of its root.
func mounts(in Input) (list []specs.Mount, propagation string, err error) {
	privileged := in.Config.GetLinux().GetSecurityContext().GetPrivileged()
	list = []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", access(privileged)}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", access(privileged)}},
	}
	modes := in.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if modes.GetNetwork() == runtimeapi.NamespaceMode_NODE && UserNamespace(modes) != nil {
		// The kernel lets nobody but the network namespace's owner mount sysfs.
		list[4] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"}}
	}
	if modes.GetPid() == runtimeapi.NamespaceMode_NODE && UserNamespace(modes) != nil {
		list[0] = specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"rbind", "nosuid", "noexec", "nodev"}}
	}
	own := func(destination, source string, options ...string) {
		taken := slices.ContainsFunc(in.Config.GetMounts(), func(m *runtimeapi.Mount) bool {
			return filepath.Clean(m.GetContainerPath()) == destination
		})
		if source != "" && !taken {
			list = append(list, specs.Mount{Destination: destination, Type: "bind", Source: source, Options: append([]string{"rbind"}, options...)})
		}
	}
	mode := access(!in.Config.GetLinux().GetSecurityContext().GetReadonlyRootfs())
	own("/etc/hostname", in.HostnameFile, "rprivate", mode)
	own("/etc/hosts", in.Hosts, "rprivate", mode)
	own("/etc/resolv.conf", in.ResolvConf, "rprivate", mode)
	own("/dev/shm", in.Shm, "rprivate", "rw")
	for _, m := range in.Config.GetMounts() {
		mount, spread, err := podMount(m)
		if err != nil {
			return nil, "", err
		}
		if spread == "rshared" || spread == "rslave" && propagation == "" {
			propagation = spread
		}
		list = slices.DeleteFunc(list, func(other specs.Mount) bool { return other.Destination == mount.Destination })
		list = append(list, mount)
	}
	depth := func(m specs.Mount) int { return strings.Count(filepath.Clean(m.Destination), "/") }
	slices.SortStableFunc(list, func(a, b specs.Mount) int { return cmp.Compare(depth(a), depth(b)) })
	return list, propagation, nil
}

func access(write bool) string {
	if write {
		return "rw"
	}
	return "ro"
}

// podMount translates one mount of the pod; its source is made where the host
// has none.
func podMount(m *runtimeapi.Mount) (mount specs.Mount, propagation string, err error) {
	source, err := filepath.EvalSymlinks(m.GetHostPath())
	if errors.Is(err, fs.ErrNotExist) {
		source = m.GetHostPath()
		err = os.MkdirAll(source, 0o755)
	}
	if err != nil {
		return mount, "", fmt.Errorf("failed to resolve the source of the mount at %q: %w", m.GetContainerPath(), err)
	}
	mount = specs.Mount{
		Destination: filepath.Join("/", m.GetContainerPath()), Type: "bind", Source: source,
		Options: append([]string{"rbind"}, m.GetMountOptions()...),
	}
	switch m.GetPropagation() {
	case runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
		propagation = "rslave"
	case runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		propagation = "rshared"
	default:
		propagation = "rprivate"
	}
	if err := checkPropagation(source, propagation); err != nil {
		return mount, "", err
	}
	mount.Options = append(mount.Options, propagation)
	switch {
	case m.GetRecursiveReadOnly():
		if !m.GetReadonly() || propagation != "rprivate" {
			return mount, "", errors.New("recursive read-only mount needs to be read-only and to have private propagation")
		}
		mount.Options = append(mount.Options, "rro")
	case m.GetReadonly():
		mount.Options = append(mount.Options, "ro")
	default:
		mount.Options = append(mount.Options, "rw")
	}
	if len(m.GetUidMappings()) > 0 {
		mount.UIDMappings, mount.GIDMappings = mappings(m.GetUidMappings()), mappings(m.GetGidMappings())
		mount.Options = append(mount.Options, "ridmap")
	}
	return mount, propagation, nil
}

// checkPropagation refuses what the host's mount cannot pass on.
func checkPropagation(source, propagation string) error {
	if propagation == "rprivate" {
		return nil
	}
	var best *mountinfo.Info
	_, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		if (i.Mountpoint == "/" || source == i.Mountpoint || strings.HasPrefix(source, i.Mountpoint+"/")) &&
			(best == nil || len(i.Mountpoint) >= len(best.Mountpoint)) {
			best = i
		}
		return true, false
	})
	if err != nil || best == nil {
		return fmt.Errorf("looking for the mount of %q: %w", source, cmp.Or(err, fs.ErrNotExist))
	}
	shared := strings.Contains(best.Optional, "shared:")
	if propagation == "rshared" && !shared {
		return fmt.Errorf("path %q is mounted on %q but it is not a shared mount", source, best.Mountpoint)
	}
	if propagation == "rslave" && !shared && !strings.Contains(best.Optional, "master:") {
		return fmt.Errorf("path %q is mounted on %q but it is not a shared or slave mount", source, best.Mountpoint)
	}
	return nil
}
