// SPDX-License-Identifier: Apache-2.0

package volume

import corev1 "k8s.io/api/core/v1"

// DefaultPersistentSource fills in the defaults of a persistent volume's source.
func DefaultPersistentSource(s *corev1.PersistentVolumeSource) {
	DefaultHostPath(s.HostPath)
	DefaultAzureDisk(s.AzureDisk)
	if s.ISCSI != nil {
		orElse(&s.ISCSI.ISCSIInterface, "default")
	}
	if s.RBD != nil {
		DefaultRBD(&s.RBD.RBDPool, &s.RBD.RadosUser, &s.RBD.Keyring)
	}
	if s.ScaleIO != nil {
		DefaultScaleIO(&s.ScaleIO.StorageMode, &s.ScaleIO.FSType)
	}
}

// DefaultHostPath fills in the type of a path on the node; s may be nil.
func DefaultHostPath(s *corev1.HostPathVolumeSource) {
	if s != nil && s.Type == nil {
		unset := corev1.HostPathUnset
		s.Type = &unset
	}
}

// DefaultAzureDisk fills in the modes of an Azure disk; s may be nil.
func DefaultAzureDisk(s *corev1.AzureDiskVolumeSource) {
	if s == nil {
		return
	}
	pointerOrElse(&s.CachingMode, corev1.AzureDataDiskCachingReadWrite)
	pointerOrElse(&s.FSType, "ext4")
	pointerOrElse(&s.ReadOnly, false)
	pointerOrElse(&s.Kind, corev1.AzureSharedBlobDisk)
}

// DefaultRBD fills in where a Ceph block device is found.
func DefaultRBD(pool, user, keyring *string) {
	orElse(pool, "rbd")
	orElse(user, "admin")
	orElse(keyring, "/etc/ceph/keyring")
}

// DefaultScaleIO fills in the modes of a ScaleIO volume.
func DefaultScaleIO(mode, fsType *string) {
	orElse(mode, "ThinProvisioned")
	orElse(fsType, "xfs")
}

// DefaultISCSI fills in the interface of an iSCSI initiator; s may be nil.
func DefaultISCSI(s *corev1.ISCSIVolumeSource) {
	if s != nil {
		orElse(&s.ISCSIInterface, "default")
	}
}

func orElse(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

func pointerOrElse[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}
