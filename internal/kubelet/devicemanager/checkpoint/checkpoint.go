// SPDX-License-Identifier: Apache-2.0

// Package checkpoint is the form of the file in which the device manager keeps
// which devices it gave to which containers: upstream's, names of types included,
// since the checksum covers them. Package devicemanager uses it.
package checkpoint

import (
	"fmt"

	"kaji/internal/kubelet/checkpoint"
)

// DevicesPerNUMA are devices by NUMA node; -1 holds those without one.
type DevicesPerNUMA map[int64][]string

// PodDevicesEntry is what one container was given of one resource.
type PodDevicesEntry struct {
	PodUID        string
	ContainerName string
	ResourceName  string
	DeviceIDs     DevicesPerNUMA
	// AllocResp is the plug-in's answer, in protobuf.
	AllocResp []byte
}

type checkpointData struct {
	PodDeviceEntries  []PodDevicesEntry
	RegisteredDevices map[string][]string
}

// Data is the file.
type Data struct {
	Data     checkpointData
	Checksum uint64
}

// Write writes a file: what was given, and the healthy devices by resource.
func Write(path string, entries []PodDevicesEntry, registered map[string][]string) error {
	d := Data{Data: checkpointData{entries, registered}}
	d.Checksum = checkpoint.Sum(d.Data)
	return checkpoint.Write(path, d)
}

// Read reads a file; all is empty and found false where there is none.
func Read(path string) (entries []PodDevicesEntry, registered map[string][]string, found bool, err error) {
	var d Data
	if found, err = checkpoint.Read(path, &d); err != nil || !found {
		return nil, nil, found, err
	}
	if sum := checkpoint.Sum(d.Data); sum != d.Checksum {
		return nil, nil, true, fmt.Errorf("%w: %s has checksum %d, want %d", checkpoint.ErrCorrupt, path, d.Checksum, sum)
	}
	return d.Data.PodDeviceEntries, d.Data.RegisteredDevices, true, nil
}
