// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/compose"
	"kaji/internal/kubelet/image"
	"kaji/internal/kubelet/podrun"
)

// mounts are what a container's volumeMounts come to.
func (k *Kubelet) mounts(ctx context.Context, pod *corev1.Pod, c *corev1.Container, env []compose.Variable) ([]*runtimeapi.Mount, error) {
	values := make(map[string]string, len(env))
	for _, v := range env {
		values[v.Name] = v.Value
	}
	mounts := make([]*runtimeapi.Mount, 0, len(c.VolumeMounts)+2)
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		mounted, ok := k.volumes.Mounted(pod.UID, m.Name)
		if !ok {
			return nil, fmt.Errorf("cannot find volume %q to mount into container %q", m.Name, c.Name)
		}
		subPath, err := subPathOf(m, values)
		if err != nil {
			return nil, &compose.ConfigError{Message: err.Error()}
		}
		path := m.MountPath
		if !filepath.IsAbs(path) {
			path = filepath.Join("/", path)
		}
		mount := &runtimeapi.Mount{ContainerPath: path, HostPath: mounted.Path, Readonly: m.ReadOnly || mounted.ReadOnly, Propagation: propagation(m),
			SelinuxRelabel: k.selinux && relabel(mounted)}
		if m.RecursiveReadOnly != nil && mount.Readonly {
			switch *m.RecursiveReadOnly {
			case corev1.RecursiveReadOnlyEnabled:
				if !k.runtime.Load().rro {
					return nil, fmt.Errorf("failed to resolve recursive read-only mode: volume %q requested recursive read-only mode, but it is not supported by the runtime", m.Name)
				}
				mount.RecursiveReadOnly = true
			case corev1.RecursiveReadOnlyIfPossible:
				mount.RecursiveReadOnly = k.runtime.Load().rro
			}
		}
		if mounted.Image != nil {
			ref, err := k.volumeImage(ctx, pod, m.Name)
			if err != nil {
				return nil, err
			}
			mount.HostPath, mount.ImageSubPath = "", subPath
			mount.Image = &runtimeapi.ImageSpec{Image: ref, UserSpecifiedImage: mounted.Image.Image}
		} else if subPath != "" {
			if mount.HostPath, err = k.subPath(pod.UID, c.Name, i, m.Name, mounted.Path, subPath); err != nil {
				k.log.Warn("a sub-path of a volume was not opened", "pod", pod.Namespace+"/"+pod.Name, "container", c.Name, "volume", m.Name, "err", err)
				// Why stays here: it may tell of files that are not the pod's.
				return nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q", m.Name, c.Name)
			}
		}
		mounts = append(mounts, mount)
	}
	return mounts, nil
}

// volumeImage makes the image of a volume present; a failure is a
// *podrun.Failure, as with the image of a container.
func (k *Kubelet) volumeImage(ctx context.Context, pod *corev1.Pod, name string) (string, error) {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Name == name && v.Image != nil {
			return k.images.Ensure(ctx, image.Request{Pod: pod, Image: v.Image.Reference, Policy: v.Image.PullPolicy, Object: podrun.Reference(pod)})
		}
	}
	return "", fmt.Errorf("cannot find image volume %q", name)
}

func propagation(m *corev1.VolumeMount) runtimeapi.MountPropagation {
	if m.MountPropagation == nil {
		return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
	}
	switch *m.MountPropagation {
	case corev1.MountPropagationHostToContainer:
		return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	case corev1.MountPropagationBidirectional:
		return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
	}
	return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
}

// subPathOf resolves subPath or subPathExpr to a path below the volume.
func subPathOf(m *corev1.VolumeMount, values map[string]string) (string, error) {
	sub := m.SubPath
	if m.SubPathExpr != "" {
		var missing []string
		sub = compose.Expand(m.SubPathExpr, func(name string) (string, bool) {
			value, ok := values[name]
			if !ok || value == "" {
				missing = append(missing, name)
			}
			return value, ok
		})
		if len(missing) > 0 {
			return "", fmt.Errorf("missing value for %s", strings.Join(missing, ", "))
		}
	}
	if sub == "" {
		return "", nil
	}
	if filepath.IsAbs(sub) {
		return "", fmt.Errorf("error SubPath `%s` must not be an absolute path", sub)
	}
	for _, part := range strings.Split(filepath.ToSlash(sub), "/") {
		if part == ".." {
			return "", fmt.Errorf("unable to provision SubPath `%s`: must not contain '..'", sub)
		}
	}
	return sub, nil
}

// subPath binds a part of a volume to a place of its own, so that what is
// mounted cannot be exchanged for a link between this look and the start of
// the container. Links inside the volume are followed, but never out of it.
func (k *Kubelet) subPath(uid types.UID, container string, index int, volumeName, dir, sub string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("open the volume: %w", err)
	}
	defer root.Close()
	f, err := root.Open(sub)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeBelow(root, sub); err != nil {
			return "", fmt.Errorf("make the sub-path: %w", err)
		}
		f, err = root.Open(sub)
	}
	if err != nil {
		return "", fmt.Errorf("open the sub-path: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("look at the sub-path: %w", err)
	}
	target := filepath.Join(k.podDir(uid), "volume-subpaths", volumeName, container, strconv.Itoa(index))
	if err := k.cfg.Mounter.Unmount(target); err != nil { // that of a former container
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return "", fmt.Errorf("make the place of the sub-path: %w", err)
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o750)
	} else {
		err = os.WriteFile(target, nil, 0o640)
	}
	if err != nil {
		return "", fmt.Errorf("make the place of the sub-path: %w", err)
	}
	return target, k.cfg.Mounter.Bind(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), target, false)
}

// makeBelow makes the directories of a sub-path that are not there, each with
// the mode of the volume, set-group-id and sticky bits with it.
func makeBelow(root *os.Root, sub string) error {
	info, err := root.Stat(".")
	if err != nil {
		return err
	}
	at := ""
	for part := range strings.SplitSeq(filepath.Clean(sub), "/") {
		at = filepath.Join(at, part)
		err := root.Mkdir(at, 0o750)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		// Best effort: the directory is usable in any case.
		_ = root.Chmod(at, info.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky))
	}
	return nil
}

// removeSubPaths takes a pod's sub-path mounts away.
func (k *Kubelet) removeSubPaths(uid types.UID) error {
	root := filepath.Join(k.podDir(uid), "volume-subpaths")
	places, err := filepath.Glob(filepath.Join(root, "*", "*", "*"))
	if err != nil {
		return fmt.Errorf("find sub-paths: %w", err)
	}
	for _, place := range places {
		if err := k.cfg.Mounter.Unmount(place); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(root); err != nil {
		return fmt.Errorf("remove sub-paths: %w", err)
	}
	return nil
}

const maxEnvFile = 64 << 10

// envFile reads a variable from a file that an init container left in a volume.
func (k *Kubelet) envFile(pod *corev1.Pod, ref *corev1.FileKeySelector) (value string, found bool, err error) {
	mounted, ok := k.volumes.Mounted(pod.UID, ref.VolumeName)
	if !ok {
		return "", false, fmt.Errorf("cannot find volume %q of the env file", ref.VolumeName)
	}
	root, err := os.OpenRoot(mounted.Path)
	if err != nil {
		return "", false, fmt.Errorf("open the volume of the env file: %w", err)
	}
	defer root.Close()
	f, err := root.Open(ref.Path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && ref.Optional != nil && *ref.Optional {
			return "", false, nil
		}
		return "", false, fmt.Errorf("couldn't parse env file: %w", err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxEnvFile+1))
	if err != nil {
		return "", false, fmt.Errorf("couldn't parse env file: %w", err)
	}
	if len(content) > maxEnvFile {
		return "", false, fmt.Errorf("env file %q exceeds maximum allowed size of %d bytes", ref.Path, maxEnvFile)
	}
	lines := bufio.NewScanner(bytes.NewReader(content))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if name, rest, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") && name == ref.Key {
			rest = strings.TrimSpace(rest)
			if len(rest) >= 2 && rest[0] == '\'' && rest[len(rest)-1] == '\'' {
				rest = rest[1 : len(rest)-1]
			}
			return rest, true, nil
		}
	}
	return "", false, lines.Err()
}
