// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os"

	"github.com/opencontainers/runc/libcontainer"
)

// holdFD is the descriptor whose end tells restore that it may go.
const holdFD = 5

// criuOptions are those of both directions: what containers of pods may do, CRIU
// shall know, and their control groups are kaji's.
func criuOptions(images, work string) *libcontainer.CriuOpts {
	return &libcontainer.CriuOpts{
		ImagesDirectory: images, WorkDirectory: work, ManageCgroupsMode: "ignore", StatusFd: -1,
		TcpEstablished: true, ExternalUnixConnections: true, FileLocks: true,
	}
}

// checkpoint saves the processes of a container with CRIU in the directory images
// and lets them run on. CRIU's log goes to the directory work; path is where it
// and what it needs are looked for.
func checkpoint(root, id, images, work, path string) error {
	if err := os.Setenv("PATH", path); err != nil {
		return err
	}
	container, err := libcontainer.Load(root, id)
	if err != nil {
		return err
	}
	options := criuOptions(images, work)
	options.LeaveRunning = true
	return container.Checkpoint(options)
}

// restore makes a container as create does, but with processes that checkpoint
// has saved in images. They run from then on. This process remains their parent
// until descriptor 5 ends, so that the monitor misses no exit.
func restore(root, id, bundle, images, work, path string, status *os.File) error {
	if err := os.Setenv("PATH", path); err != nil {
		return err
	}
	container, process, err := prepare(root, id, bundle)
	if err != nil {
		return err
	}
	process.Init = true
	if err := container.Restore(process, criuOptions(images, work)); err != nil {
		return errors.Join(err, container.Destroy())
	}
	if err := tell(container, process, status); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.NewFile(holdFD, "hold"))
	return err
}
