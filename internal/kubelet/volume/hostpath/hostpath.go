// SPDX-License-Identifier: Apache-2.0

// Package hostpath shows pods files and directories of the node.
package hostpath

import (
	"context"
	"errors"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/kubelet/volume"
)

// Driver implements volume.Driver.
type Driver struct{}

var _ volume.Driver = (*Driver)(nil)

// Name implements volume.Driver.
func (*Driver) Name() string { return "kubernetes.io/host-path" }

func source(s volume.Source) *corev1.HostPathVolumeSource {
	if s.Persistent != nil {
		return s.Persistent.Spec.HostPath
	}
	return s.Volume.HostPath
}

// Handles implements volume.Driver.
func (*Driver) Handles(s volume.Source) bool { return source(s) != nil }

// Setup implements volume.Driver.
func (*Driver) Setup(_ context.Context, r volume.Request) (volume.Mounted, error) {
	spec := source(r.Source)
	mounted := volume.Mounted{Path: spec.Path, ReadOnly: r.Source.ReadOnly}
	if spec.Type == nil || *spec.Type == corev1.HostPathUnset {
		// Container runtimes make what is missing; not all of them do.
		if _, err := os.Stat(spec.Path); os.IsNotExist(err) {
			return mounted, os.MkdirAll(spec.Path, 0o755)
		}
		return mounted, nil
	}
	return mounted, check(spec.Path, *spec.Type)
}

// kindOf names what is there.
func kindOf(path string) (corev1.HostPathType, error) {
	info, err := os.Stat(path)
	switch {
	case os.IsNotExist(err):
		return "", fmt.Errorf("path %q does not exist", path)
	case err != nil:
		return "", err
	case info.IsDir():
		return corev1.HostPathDirectory, nil
	case info.Mode().IsRegular():
		return corev1.HostPathFile, nil
	case info.Mode()&os.ModeSocket != 0:
		return corev1.HostPathSocket, nil
	case info.Mode()&os.ModeCharDevice != 0:
		return corev1.HostPathCharDev, nil
	case info.Mode()&os.ModeDevice != 0:
		return corev1.HostPathBlockDev, nil
	}
	return "", errors.New("only recognise file, directory, socket, block device and character device")
}

func check(path string, kind corev1.HostPathType) error {
	info, err := os.Stat(path)
	exists := err == nil
	fail := func(what string) error {
		is, err := kindOf(path)
		if err != nil {
			return fmt.Errorf("hostPath type check failed, %s is not %s, unable to determine its type: %w", path, what, err)
		}
		return fmt.Errorf("hostPath type check failed: %s is not %s, it's a %s", path, what, is)
	}
	switch kind {
	case corev1.HostPathDirectoryOrCreate:
		if !exists {
			return os.MkdirAll(path, 0o755)
		}
		if !info.IsDir() {
			return fail("a directory")
		}
	case corev1.HostPathDirectory:
		if !exists || !info.IsDir() {
			return fail("a directory")
		}
	case corev1.HostPathFileOrCreate:
		if !exists {
			f, err := os.OpenFile(path, os.O_CREATE, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
		if !info.Mode().IsRegular() {
			return fail("a file")
		}
	case corev1.HostPathFile:
		if !exists || !info.Mode().IsRegular() {
			return fail("a file")
		}
	case corev1.HostPathSocket:
		if !exists || info.Mode()&os.ModeSocket == 0 {
			return fail("a socket file")
		}
	case corev1.HostPathCharDev:
		if !exists || info.Mode()&os.ModeCharDevice == 0 {
			return fail("a character device")
		}
	case corev1.HostPathBlockDev:
		if !exists || info.Mode()&os.ModeDevice == 0 || info.Mode()&os.ModeCharDevice != 0 {
			return fail("a block device")
		}
	default:
		return fmt.Errorf("%s is an invalid volume type", kind)
	}
	return nil
}

// Teardown implements volume.Driver: the node's files stay.
func (*Driver) Teardown(context.Context, string, string, string) error { return nil }
