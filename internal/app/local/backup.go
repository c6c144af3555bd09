// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/component-base/version"

	"kaji/internal/app/backup"
	"kaji/internal/app/daemon"
)

// Backup saves the whole cluster, running or not, to a file.
func Backup(ctx context.Context, c Cluster, file string, out io.Writer) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	if !c.Dir.Exists() {
		return NoCluster(c)
	}
	pid, err := daemon.Running(c.Dir.PID())
	if err != nil {
		return err
	}
	about := backup.Whole{Cluster: c.Name, Version: version.Get().GitVersion}
	about, err = backup.SaveWhole(ctx, c.Dir, pid != 0, about, file, slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("nothing was saved: %w", err)
	}
	fmt.Fprintf(out, "saved cluster %s (%d keys) to %s; keep it safe, the cluster's keys are in it\n", c.Name, about.Keys, file)
	args, err := Remembered(c.Dir)
	if err != nil {
		return err
	}
	for _, a := range args {
		if _, value, _ := strings.Cut(a, "="); filepath.IsAbs(value) && !strings.HasPrefix(a, "--data-dir=") {
			fmt.Fprintf(out, "not in it: %s, which the cluster was started with\n", value)
		}
	}
	return nil
}

// Restore makes the cluster from a backup; Up then starts it.
func Restore(ctx context.Context, c Cluster, file string, out io.Writer) error {
	about, err := backup.RestoreWhole(ctx, file, c.Dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("nothing was restored: %w", err)
	}
	args, err := Remembered(c.Dir)
	if err != nil {
		return err
	}
	var kept []string
	for _, a := range args {
		if !strings.HasPrefix(a, "--name=") && !strings.HasPrefix(a, "--data-dir=") && !strings.HasPrefix(a, networkFlag) {
			kept = append(kept, a)
		}
	}
	if c.Dir != defaultDir(c.Name) {
		kept = append(kept, "--data-dir="+string(c.Dir))
	}
	if err := remember(c.Dir, kept); err != nil {
		return err
	}
	fmt.Fprintf(out, "restored cluster %s of %s (%d keys) to %s; start it with `%s`\n", about.Cluster, about.Taken.Format("2006-01-02 15:04:05"), about.Keys, c.Dir, c.verb("up"))
	return nil
}

// verb is how a user names a verb on this cluster.
func (c Cluster) verb(verb string) string {
	text := "kaji " + verb
	if c.Name != "kaji" && c.Name != os.Getenv("KAJI_NAME") {
		text += " --name " + c.Name
	}
	if c.Dir != defaultDir(c.Name) {
		text += " --data-dir " + string(c.Dir)
	}
	return text
}

// NoCluster says that there is none, and how to get one.
func NoCluster(c Cluster) error {
	return fmt.Errorf("there is no cluster %q here; start one with `%s`", c.Name, c.verb("up"))
}
