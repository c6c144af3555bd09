// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// addDevices adds the devices of the pod, or all of the host's.
func addDevices(s *specs.Spec, devices []*runtimeapi.Device, privileged bool) error {
	if privileged {
		for _, d := range hostDevices("/dev") {
			s.Linux.Devices = append(s.Linux.Devices, d)
		}
	}
	for _, d := range devices {
		source, err := filepath.EvalSymlinks(d.GetHostPath())
		if err != nil {
			return fmt.Errorf("device %q: %w", d.GetHostPath(), err)
		}
		found := 0
		err = filepath.WalkDir(source, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			target := filepath.Join(d.GetContainerPath(), strings.TrimPrefix(path, source))
			device, ok := deviceAt(path, target)
			if !ok {
				return nil
			}
			found++
			s.Linux.Devices = append(s.Linux.Devices, device)
			s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{
				Allow: true, Type: device.Type, Major: &device.Major, Minor: &device.Minor, Access: d.GetPermissions(),
			})
			return nil
		})
		if err != nil {
			return err
		}
		if found == 0 {
			return fmt.Errorf("device %q: not a device node", d.GetHostPath())
		}
	}
	return nil
}

func deviceAt(path, as string) (specs.LinuxDevice, bool) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return specs.LinuxDevice{}, false
	}
	kind := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		kind = "c"
	case unix.S_IFBLK:
		kind = "b"
	default:
		return specs.LinuxDevice{}, false
	}
	mode := os.FileMode(st.Mode & 0o7777)
	return specs.LinuxDevice{
		Path: as, Type: kind, Major: int64(unix.Major(uint64(st.Rdev))), Minor: int64(unix.Minor(uint64(st.Rdev))),
		FileMode: &mode, UID: &st.Uid, GID: &st.Gid,
	}, true
}

// hostDevices lists the nodes below /dev, but for the places that every
// container has for itself.
func hostDevices(root string) (list []specs.LinuxDevice) {
	own := map[string]bool{"pts": true, "shm": true, "fd": true, "mqueue": true, ".lxc": true, ".lxd-mounts": true, ".udev": true}
	_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // a device that is leaving
		}
		if e.IsDir() {
			if own[e.Name()] {
				return fs.SkipDir
			}
			return nil
		}
		if e.Name() == "console" || e.Name() == "ptmx" {
			return nil
		}
		if d, ok := deviceAt(path, path); ok {
			list = append(list, d)
		}
		return nil
	})
	return list
}
