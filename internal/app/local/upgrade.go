// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/version"

	"kaji/internal/app/backup"
	"kaji/internal/app/daemon"
	"kaji/internal/app/progress"
)

// previousProgram and previousStore are what an upgrade keeps in the data
// directory to go back with.
const (
	previousProgram = "kaji.before-upgrade"
	previousStore   = "store.before-upgrade"
)

// Upgrade lets this program take the cluster over from the one that runs it.
// Containers and their traffic go on meanwhile. When the cluster does not come up
// with it, the program before is started again.
func Upgrade(ctx context.Context, c Cluster, out io.Writer) error {
	display := progress.New(out)
	defer display.Clear()
	pid, err := daemon.Running(c.Dir.PID())
	if err != nil {
		return err
	}
	if pid == 0 {
		return fmt.Errorf("cluster %s is not running; `%s` starts it with this program", c.Name, c.verb("up"))
	}
	same, err := sameProgram(pid)
	if err != nil {
		return err
	}
	if same {
		display.Done("cluster %s runs this program already", c.Name)
		return nil
	}
	if unit := unitFile(c.Name); exists(unit) {
		return fmt.Errorf("cluster %s is run by systemd (%s): `%s` with the new program takes it over", c.Name, unit, c.verb("install"))
	}
	args, err := Remembered(c.Dir)
	if err != nil {
		return err
	}
	before := c.version(ctx)
	display.Step("saving the store and the program before")
	if _, err := backup.Online(ctx, c.Dir.AdminKubeconfig(), filepath.Join(string(c.Dir), previousStore)); err != nil {
		return fmt.Errorf("saving the store: %w", err)
	}
	program := filepath.Join(string(c.Dir), previousProgram)
	if err := copyProgram(fmt.Sprintf("/proc/%d/exe", pid), program); err != nil {
		return fmt.Errorf("saving the program before: %w", err)
	}
	display.Done("the store and the program are saved")
	args = append([]string{"--name=" + c.Name}, args...)
	if err := c.exchange(ctx, "", args, display); err != nil {
		display.Clear()
		back := c.exchange(context.WithoutCancel(ctx), program, args, display)
		if back != nil {
			return fmt.Errorf("the cluster did not come up with this program (%w), nor again with the one before, %s: %w", err, program, back)
		}
		return fmt.Errorf("the cluster did not come up with this program and runs the one before again: %w", err)
	}
	display.Done("cluster %s went from %s to %s", c.Name, before, c.version(ctx))
	return nil
}

// exchange ends the cluster's process and starts a program in its place; an empty
// path is this one.
func (c Cluster) exchange(ctx context.Context, program string, args []string, display *progress.Display) error {
	display.Step("exchanging the program")
	if err := os.WriteFile(c.Dir.Handover(), nil, 0o600); err != nil {
		return err
	}
	if err := daemon.Stop(ctx, c.Dir.PID()); err != nil {
		return err
	}
	_, ended, err := daemon.Start(program, append([]string{"server"}, args...), c.Dir.Log())
	if err != nil {
		return err
	}
	return wait(ctx, c, args, display, ended)
}

// sameProgram says whether a process runs the very file that this one runs.
func sameProgram(pid int) (bool, error) {
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false, err
	}
	mine, err := os.Stat("/proc/self/exe")
	return err == nil && os.SameFile(theirs, mine), err
}

func copyProgram(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	part := to + ".part"
	out, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return os.Rename(part, to)
}

// version is what the API server says it is.
func (c Cluster) version(ctx context.Context) string {
	text, err := c.get(ctx, "/version")
	var info version.Info
	if err == nil {
		err = json.Unmarshal([]byte(text), &info)
	}
	if err != nil {
		return "an unknown version"
	}
	return info.GitVersion
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
