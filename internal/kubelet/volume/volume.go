// SPDX-License-Identifier: Apache-2.0

// Package volume is the seam between the node agent and the kinds of volumes,
// and the manager that makes a pod's volumes ready and takes them away. One
// child package a kind implements Driver; the agent's root lists them. On disk
// everything lies as upstream has it: <root>/pods/<uid>/volumes/<driver>/<name>,
// so that an agent that restarts finds what it made by reading directories.
package volume

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Source is a volume of a pod after claims were followed: either the pod's own
// source or a persistent volume.
type Source struct {
	// Name is the volume's name in the pod.
	Name string
	// Volume is the pod's entry; Claim and Persistent are set where it is a
	// claim, an ephemeral one included.
	Volume     *corev1.Volume
	Claim      *corev1.PersistentVolumeClaim
	Persistent *corev1.PersistentVolume
	// ReadOnly is that of the pod's reference.
	ReadOnly bool
}

// Block says whether the volume is a device instead of a file system.
func (s Source) Block() bool {
	return s.Persistent != nil && s.Persistent.Spec.VolumeMode != nil && *s.Persistent.Spec.VolumeMode == corev1.PersistentVolumeBlock
}

// Request asks a driver for one volume of one pod.
type Request struct {
	Pod    *corev1.Pod
	Source Source
	// Dir is the volume's own directory; the driver makes it if it needs it.
	Dir string
	// FSGroup is the group that files should belong to, nil for none.
	FSGroup *int64
	// Label is the SELinux label of files for containers with some options; nil where
	// the machine has no SELinux.
	Label func(*corev1.SELinuxOptions) (string, error)
	// Warn sends an event about the pod; nil sends none.
	Warn func(reason, message string)
	// Device is that of an attached volume, "" where the driver
	// attaches nothing.
	Device string
}

// Mounted is where containers find a volume.
type Mounted struct {
	// Path is a directory or file of the host; for block volumes a device.
	Path  string
	Block bool
	// Image is set for image volumes, which the runtime mounts itself.
	Image *runtimeapi.ImageSpec
	// Driver is the name of the one that it is of.
	Driver string
	// Labeled says that all files have the SELinux label of the pod by the mount.
	Labeled bool
	// Again is when Setup is to be called again at the latest; zero is never.
	Again time.Time
	// ReadOnly forbids writing whatever the mount says.
	ReadOnly bool
}

// Driver does one kind of volume. Calls for one volume never overlap; calls
// for different volumes do.
type Driver interface {
	// Name is the name in paths, such as "kubernetes.io/empty-dir".
	Name() string
	Handles(Source) bool
	// Setup makes the volume ready. It is called again whenever the pod's
	// worker looks, so a volume that is ready must cost next to nothing, and
	// content that changed must be brought up to date.
	Setup(ctx context.Context, r Request) (Mounted, error)
	// Teardown takes away what Setup made at dir. The pod's specification may
	// be unknown by then. It succeeds where nothing is left.
	Teardown(ctx context.Context, dir, podUID, name string) error
}

// AttachLimit is the reason of an Error where the node cannot take as many volumes
// as the pod needs: it is not to wait for them here.
const AttachLimit = "VolumeAttachmentLimitExceeded"

// Error is a failure that is shown in an event of the pod as upstream words it.
type Error struct {
	// Reason is "FailedMount", "FailedAttachVolume", "FailedMapVolume" or AttachLimit.
	Reason, Message string
}

func (e *Error) Error() string { return e.Message }
