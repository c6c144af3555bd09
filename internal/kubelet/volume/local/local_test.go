// SPDX-License-Identifier: Apache-2.0

package local_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/kubelet/volume"
	"kaji/internal/kubelet/volume/local"
)

// bound stands in for the kernel's mounts.
type bound struct {
	volume.Mounter
	at map[string]bool
}

func (b *bound) Bind(_, dst string, _ bool) error  { b.at[dst] = true; return nil }
func (b *bound) Mounted(path string) (bool, error) { return b.at[path], nil }

// A pod that wants another group than the pods have that the volume is shared with is
// warned; one that is alone with it, or wants the same, is not.
func TestSharedWithAnotherGroup(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	d := &local.Driver{Mounter: &bound{at: map[string]bool{}}, PodsDir: root}
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv1"}, Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: dir}}}}
	if err := os.Chown(dir, -1, 1234); err != nil {
		t.Fatal(err)
	}
	var told []string
	for i, group := range []int64{5678, 1234, 5678} {
		uid := fmt.Sprintf("u%d", i)
		_, err := d.Setup(t.Context(), volume.Request{Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid)}}, FSGroup: &group, Source: volume.Source{Persistent: pv},
			Dir: filepath.Join(root, uid, "volumes", "kubernetes.io~local-volume", "pv1"), Warn: func(reason, message string) { told = append(told, uid+" "+reason+" "+message) }})
		if err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"u2 AlreadyMountedVolume The requested fsGroup is 5678, but the volume pv1 has GID 1234. The volume may not be shareable."}; !slices.Equal(told, want) {
		t.Errorf("got %q, want %q", told, want)
	}
}
