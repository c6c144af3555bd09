// SPDX-License-Identifier: Apache-2.0

package payload

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/kubelet/volume"
)

// A token is for the one user of a pod and for its group; without either it has
// the mode of the volume.
func TestTokensOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it gives files away")
	}
	tokens := func(context.Context, *corev1.Pod, *corev1.ServiceAccountTokenProjection) (string, error) {
		return "t", nil
	}
	d := &driver{cfg: Config{Tokens: tokens}}
	projected := &corev1.ProjectedVolumeSource{DefaultMode: ptr.To[int32](0o644),
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}}}
	for _, c := range []struct {
		name        string
		user, group *int64
		mode        os.FileMode
		uid, gid    uint32
	}{
		{name: "neither", mode: 0o644},
		{name: "user", user: ptr.To[int64](1000), mode: 0o600, uid: 1000},
		{name: "group", group: ptr.To[int64](10000), mode: 0o640, gid: 10000},
		{name: "both", user: ptr.To[int64](1000), group: ptr.To[int64](10000), mode: 0o640, uid: 1000, gid: 10000},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}},
				SecurityContext: &corev1.PodSecurityContext{RunAsUser: c.user, FSGroup: c.group}}}
			files, err := d.collect(t.Context(), volume.Request{Pod: pod, FSGroup: c.group}, projected)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := write(dir, files, c.group); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(filepath.Join(dir, "token"))
			if err != nil {
				t.Fatal(err)
			}
			stat := info.Sys().(*syscall.Stat_t)
			if info.Mode().Perm() != c.mode || stat.Uid != c.uid || stat.Gid != c.gid {
				t.Errorf("the token is %v of %d:%d, want %v of %d:%d", info.Mode(), stat.Uid, stat.Gid, c.mode, c.uid, c.gid)
			}
		})
	}
}
