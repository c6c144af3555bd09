// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kaji/internal/app/daemon"
	"kaji/internal/app/home"
	"kaji/internal/app/kubeconfig"
	"kaji/internal/app/node"
	"kaji/internal/app/packed"
	"kaji/internal/app/progress"
	"kaji/internal/cni/nodenet"
	"kaji/internal/container/apparmor"
)

// stopTime is how long the cluster's process may take to end.
const stopTime = time.Minute

// Down stops the cluster's process and its containers and takes its rules,
// links and mounts away; with purge its data, too. A process that does not end
// is killed, and the rest is done all the same.
func Down(ctx context.Context, c Cluster, purge bool, out io.Writer) error {
	display := progress.New(out)
	defer display.Clear()
	pid, err := daemon.Running(c.Dir.PID())
	if err != nil {
		return err
	}
	if pid == 0 && !c.Dir.Exists() {
		return NoCluster(c)
	}
	if installed(c) {
		if err := systemctl(ctx, "stop", unitName(c.Name)); err != nil {
			return err
		}
	}
	if pid != 0 {
		display.Step("stopping the control plane")
		if err := stop(ctx, c); errors.Is(err, daemon.ErrKilled) {
			display.Done("the control plane had to be killed")
		} else if err != nil {
			return err
		} else {
			display.Done("the control plane has stopped")
		}
	}
	display.Step("stopping containers")
	if err := removeAll(ctx, c); err != nil {
		return err
	}
	display.Done("containers and network are gone")
	if !purge {
		return nil
	}
	kept, err := removeData(c)
	if err != nil {
		return err
	}
	path, err := kubeconfig.UserPath()
	if err != nil {
		return err
	}
	if err := kubeconfig.Remove(path, c.Name); err != nil {
		return err
	}
	display.Done("its data and its context are gone")
	if kept {
		fmt.Fprintf(out, "   %s is a mount point: it is empty and stays\n", c.Dir)
	}
	return nil
}

func stop(ctx context.Context, c Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	return daemon.Stop(ctx, c.Dir.PID())
}

// removeAll ends what runs on the cluster's nodes, where its network is.
func removeAll(ctx context.Context, c Cluster) error {
	own, isOwn, err := OwnNetwork(c, "")
	if err != nil {
		return err
	}
	remove := func(shared bool) error {
		if err := removeNodes(ctx, c); err != nil {
			return err
		}
		return node.Remove(ctx, c.Name, c.Dir, shared)
	}
	if !isOwn {
		// What a cluster that stopped has left shares the network with the one
		// that came after it.
		return remove(daemon.NetworkHolder() != "")
	}
	// The machine may have been started anew: then there is none.
	if err := own.Open(); err != nil {
		return err
	}
	if err := own.Do(func() error { return remove(false) }); err != nil {
		return err
	}
	return own.Close()
}

// removeData deletes the cluster's directory, and those above it that kaji made
// and nothing else is in. A directory that is a mount point can only be emptied;
// then it returns true.
func removeData(c Cluster) (kept bool, err error) {
	if err := unmountBelow(string(c.Dir)); err != nil {
		return false, err
	}
	if err := os.RemoveAll(string(c.Dir)); errors.Is(err, unix.EBUSY) {
		left, readErr := os.ReadDir(string(c.Dir))
		if kept = readErr == nil && len(left) == 0; !kept {
			return false, err
		}
	} else if err != nil {
		return false, err
	}
	for _, dir := range []string{home.DefaultRoot, node.StateRoot} {
		if entries, err := os.ReadDir(dir); err == nil && len(entries) == 0 {
			_ = os.Remove(dir) // another cluster may just come
		}
	}
	if _, err := os.Stat(home.DefaultRoot); err == nil {
		return kept, nil // other clusters use what is unpacked
	}
	return kept, errors.Join(packed.RemoveCache(), apparmor.UnloadDefault())
}

// removeNodes ends what runs on the nodes after the first and takes their
// namespaces away.
func removeNodes(ctx context.Context, c Cluster) error {
	entries, err := os.ReadDir(c.Dir.Nodes())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	network := nodenet.Network{Cluster: c.Name}
	var errs []error
	for _, e := range entries {
		remove := func() error { return node.Remove(ctx, node.Name(c.Name, e.Name()), c.Dir.Node(e.Name()), false) }
		err := network.Do(e.Name(), remove)
		if errors.Is(err, os.ErrNotExist) { // the machine was started anew: no namespace, no containers
			err = remove()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", e.Name(), err))
		}
	}
	return errors.Join(append(errs, network.Close())...)
}

// unmountBelow unmounts whatever is still mounted below a directory, innermost
// first: a file system must not be emptied through a mount.
func unmountBelow(dir string) error {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer mounts.Close()
	var points []string
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			points = append(points, strings.ReplaceAll(fields[4], `\040`, " "))
		}
	}
	slices.Reverse(points)
	var errs []error
	for _, p := range points {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmounting %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}
