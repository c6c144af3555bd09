// SPDX-License-Identifier: Apache-2.0

package provisioner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"
)

// deleted begins the names of directories whose volumes are gone.
const deleted = ".deleted-"

// reclaim takes a volume away that its claim has left, and its directory.
func (p *Provisioner) reclaim(ctx context.Context, name string) error {
	v, err := p.volumes.Cached("", name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || !p.here(v) {
		return err
	}
	deletes := v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
	guarded := slices.Contains(v.Finalizers, storagehelpers.PVDeletionProtectionFinalizer)
	switch {
	case deletes && (v.Status.Phase == corev1.VolumeReleased || v.Status.Phase == corev1.VolumeFailed || v.DeletionTimestamp != nil && v.Status.Phase != corev1.VolumeBound):
	case !deletes && guarded && v.DeletionTimestamp != nil:
		return p.release(ctx, v) // what Retain keeps does not hold the volume
	default:
		return nil
	}
	dir, err := p.path(v)
	if err != nil {
		return err
	}
	// Renaming is quick and happens once; emptying may take long.
	err = os.Rename(dir, filepath.Join(p.cfg.Root, deleted+v.Name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if v.DeletionTimestamp == nil {
		uid := v.UID
		err := p.volumes.Delete(ctx, "", v.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	if err := p.release(ctx, v); err != nil {
		return err
	}
	p.trash.add(key{})
	return nil
}

// release takes this provisioner's finalizer off a volume.
func (p *Provisioner) release(ctx context.Context, v *corev1.PersistentVolume) error {
	now, err := p.volumes.Get(ctx, "", v.Name)
	if err == nil && now.UID == v.UID {
		finalizers := slices.DeleteFunc(slices.Clone(now.Finalizers), func(f string) bool { return f == storagehelpers.PVDeletionProtectionFinalizer })
		if len(finalizers) == len(now.Finalizers) {
			return nil
		}
		_, err = p.volumes.MergePatch(ctx, "", v.Name, map[string]any{"metadata": map[string]any{
			"resourceVersion": now.ResourceVersion, "finalizers": finalizers}}, "")
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// sweep empties what volumes left behind.
func (p *Provisioner) sweep(context.Context, key) error {
	entries, err := os.ReadDir(p.cfg.Root)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), deleted) {
			continue
		}
		dir := filepath.Join(p.cfg.Root, e.Name())
		if err := unmounted(dir); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// unmounted fails when something is mounted in a directory: it must not be
// emptied through the mount.
func unmounted(dir string) error {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer mounts.Close()
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			return fmt.Errorf("%s cannot be removed: something is mounted at %s", dir, fields[4])
		}
	}
	return lines.Err()
}
