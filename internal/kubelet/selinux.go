// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/kubelet/volume"
)

// fileLabel is the SELinux label of files that containers with some options may
// use, "" for none in particular.
func fileLabel(o *corev1.SELinuxOptions) (string, error) {
	var args []string
	for name, value := range map[string]string{"user": o.User, "role": o.Role, "type": o.Type, "level": o.Level} {
		if value != "" {
			args = append(args, name+":"+value)
		}
	}
	if len(args) == 0 {
		return "", nil
	}
	process, file, err := label.InitLabels(args)
	selinux.ReleaseLabel(process) // it is the runtime's to take
	return file, err
}

// labels is fileLabel on machines with SELinux, nil on others.
func labels() func(*corev1.SELinuxOptions) (string, error) {
	if !selinux.GetEnabled() {
		return nil
	}
	return fileLabel
}

// relabel says whether the runtime is to label a volume's files for the container:
// those that are the pod's, but for what was labeled at its mounting.
func relabel(m volume.Mounted) bool {
	switch m.Driver {
	case "kubernetes.io/empty-dir", "kubernetes.io/configmap", "kubernetes.io/secret", "kubernetes.io/projected", "kubernetes.io/downward-api":
		return true
	case "kubernetes.io/local-volume", "kubernetes.io/csi":
		return !m.Labeled && !m.ReadOnly
	}
	return false
}
