// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	csispec "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"k8s.io/utils/ptr"

	"kaji/internal/kubelet/podspec"
	"kaji/internal/kubelet/volume"
)

// capability is how a volume is used. With several access modes the widest
// counts, as upstream has it.
func capability(fsType string, options []string, modes []corev1.PersistentVolumeAccessMode, block bool) *csispec.VolumeCapability {
	mode := csispec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	switch {
	case slices.Contains(modes, corev1.ReadWriteMany):
		mode = csispec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	case slices.Contains(modes, corev1.ReadOnlyMany):
		mode = csispec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	}
	c := &csispec.VolumeCapability{AccessMode: &csispec.VolumeCapability_AccessMode{Mode: mode}}
	if block {
		c.AccessType = &csispec.VolumeCapability_Block{Block: &csispec.VolumeCapability_BlockVolume{}}
	} else {
		c.AccessType = &csispec.VolumeCapability_Mount{Mount: &csispec.VolumeCapability_MountVolume{FsType: fsType, MountFlags: options}}
	}
	return c
}

// writers says whether one pod alone may write or all of the node, to drivers that
// tell that apart (KEP-2485).
func (v *described) writers(driver *registered) {
	mode := v.capability.AccessMode
	if !driver.single || mode.Mode != csispec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER {
		return
	}
	mode.Mode = csispec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	if slices.Contains(v.modes, corev1.ReadWriteOncePod) {
		mode.Mode = csispec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	}
}

// label has the volume mounted with the SELinux label of its pod's files, where the
// driver can do that and the pod does not want them labeled one by one (KEP-1710).
func (v *described) label(settings *storagev1.CSIDriverSpec, r volume.Request) error {
	s := r.Pod.Spec.SecurityContext
	m := v.capability.GetMount()
	if r.Label == nil || m == nil || r.Source.Persistent == nil || !ptr.Deref(settings.SELinuxMount, false) ||
		s != nil && ptr.Deref(s.SELinuxChangePolicy, corev1.SELinuxChangePolicyMountOption) == corev1.SELinuxChangePolicyRecursive {
		return nil
	}
	var all []string
	for _, c := range podspec.Containers(r.Pod) {
		if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == r.Source.Name }) {
			continue
		}
		var options *corev1.SELinuxOptions
		if s != nil {
			options = s.SELinuxOptions
		}
		if c.SecurityContext != nil && c.SecurityContext.SELinuxOptions != nil {
			options = c.SecurityContext.SELinuxOptions
		}
		if options == nil {
			options = &corev1.SELinuxOptions{}
		}
		one, err := r.Label(options)
		if err != nil {
			return fmt.Errorf("failed to construct SELinux label from context %q: %w", options, err)
		}
		all = append(all, one)
	}
	slices.Sort(all)
	switch all = slices.Compact(all); {
	case len(all) > 1:
		return fmt.Errorf("multiple SELinux labels found: %s", strings.Join(all, ", "))
	case len(all) == 1 && all[0] != "":
		v.data.Label = all[0]
		m.MountFlags = append(slices.Clone(m.MountFlags), fmt.Sprintf("context=%q", all[0]))
	}
	return nil
}

// save writes what is needed to take the volume away, before there is anything
// to take away.
func (v *described) save(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	text, err := json.Marshal(v.data)
	if err != nil {
		return err
	}
	fresh := filepath.Join(dir, "."+dataFile)
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, filepath.Join(dir, dataFile))
}

// mount has the driver stage the volume for the node and publish it for the pod.
func (v *described) mount(ctx context.Context, driver *registered) error {
	if v.data.Staging != "" {
		if err := os.MkdirAll(v.data.Staging, 0o750); err != nil {
			return err
		}
		_, err := driver.node.NodeStageVolume(ctx, &csispec.NodeStageVolumeRequest{VolumeId: v.data.Handle, PublishContext: v.published,
			StagingTargetPath: v.data.Staging, VolumeCapability: v.capability, Secrets: v.stageWith, VolumeContext: v.context})
		if err != nil {
			return err
		}
	}
	return v.publish(ctx, driver)
}

// publish has the driver put the volume where the pod finds it.
func (v *described) publish(ctx context.Context, driver *registered) error {
	if err := os.MkdirAll(filepath.Dir(v.data.Target), 0o750); err != nil {
		return err
	}
	_, err := driver.node.NodePublishVolume(ctx, &csispec.NodePublishVolumeRequest{VolumeId: v.data.Handle, PublishContext: v.published,
		StagingTargetPath: v.data.Staging, TargetPath: v.data.Target, VolumeCapability: v.capability, Readonly: v.readOnly, Secrets: v.with, VolumeContext: v.context})
	return err
}

// unmount undoes mount; the staging only for the last pod.
func (v *described) unmount(ctx context.Context, driver *registered, dir string, last bool) error {
	if _, err := driver.node.NodeUnpublishVolume(ctx, &csispec.NodeUnpublishVolumeRequest{VolumeId: v.data.Handle, TargetPath: v.data.Target}); err != nil {
		return err
	}
	if err := remove(v.data.Target); err != nil { // drivers should have done it
		return err
	}
	if v.data.Staging != "" && last {
		if _, err := driver.node.NodeUnstageVolume(ctx, &csispec.NodeUnstageVolumeRequest{VolumeId: v.data.Handle, StagingTargetPath: v.data.Staging}); err != nil {
			return err
		}
		if err := remove(v.data.Staging); err != nil {
			return err
		}
		_ = os.Remove(filepath.Dir(v.data.Staging)) // others may have theirs there
	}
	if err := remove(filepath.Join(dir, dataFile)); err != nil {
		return err
	}
	return remove(dir)
}

// grouped says whether the files are to belong to the pod's group.
func (v *described) grouped(settings *storagev1.CSIDriverSpec, r volume.Request) bool {
	switch *settings.FSGroupPolicy {
	case storagev1.FileFSGroupPolicy:
		return true
	case storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy:
		return v.fsType != "" && r.Source.Persistent != nil && slices.Contains(r.Source.Persistent.Spec.AccessModes, corev1.ReadWriteOnce)
	}
	return false
}

func (v *described) own(settings *storagev1.CSIDriverSpec, driver *registered, r volume.Request) error {
	if r.FSGroup == nil || v.readOnly || driver.group || r.Source.Block() || !v.grouped(settings, r) {
		return nil
	}
	var policy *corev1.PodFSGroupChangePolicy
	if s := r.Pod.Spec.SecurityContext; s != nil {
		policy = s.FSGroupChangePolicy
	}
	return r.Own(v.data.Target, policy)
}
