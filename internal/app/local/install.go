// SPDX-License-Identifier: Apache-2.0

package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"kaji/internal/app/daemon"
	"kaji/internal/app/home"
	this "kaji/internal/app/program"
)

// Where an installed cluster's program and units are.
const (
	installedProgram = "/usr/local/bin/kaji"
	unitDir          = "/etc/systemd/system"
)

func defaultDir(name string) home.Dir { return home.Dir(filepath.Join(home.DefaultRoot, name)) }

func unitName(name string) string { return "kaji-" + name + ".service" }

func unitFile(name string) string { return filepath.Join(unitDir, unitName(name)) }

// nodeAgent is the name that people look for a node agent under.
const nodeAgent = "kubelet.service"

// agentName says what else the unit of a cluster is called on the machine below
// root: as a node agent, unless that is somebody else's name.
func agentName(root string, c Cluster) string {
	for _, dir := range []string{unitDir, "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"} {
		path := filepath.Join(root, dir, nodeAgent)
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		if to, err := os.Readlink(path); err != nil || filepath.Base(to) != unitName(c.Name) {
			return ""
		}
	}
	return nodeAgent
}

// unit is the cluster's systemd unit, called alias as well unless that is empty.
// Ending it ends the process alone: containers outlive it, as they do without
// systemd. The journal gets what the log file gets.
func unit(c Cluster, alias string, args []string) string {
	names := ""
	if alias != "" {
		names = "Alias=" + alias + "\n"
	}
	words := []string{installedProgram, "server"}
	for _, a := range append([]string{"--name=" + c.Name, "--log-journal=" + cmp.Or(alias, unitName(c.Name))}, args...) {
		words = append(words, quoteForUnit(a))
	}
	return `[Unit]
Description=kaji cluster ` + c.Name + `
After=network-online.target
Wants=network-online.target

[Service]
ExecStart=` + strings.Join(words, " ") + `
StandardOutput=append:` + c.Dir.Log() + `
StandardError=inherit
KillMode=process
Delegate=yes
Restart=always
RestartSec=1
LimitNOFILE=1048576
LimitNPROC=infinity
TasksMax=infinity
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
` + names
}

// quoteForUnit writes an argument so that systemd reads it as it is.
func quoteForUnit(arg string) string {
	arg = strings.NewReplacer("%", "%%", "$", "$$").Replace(arg)
	if strings.ContainsAny(arg, " \t\"'\\;") {
		return strconv.Quote(arg)
	}
	return arg
}

// Install makes systemd run the cluster, from now on and after each start of the
// machine. Where it is installed already, this program and these arguments take
// over. Root is where the files go: "/" installs here; another directory gets the
// files only, for the image of a machine.
func Install(ctx context.Context, c Cluster, root string, args []string, out io.Writer) error {
	here := filepath.Clean(root) == "/"
	if here && !exists("/run/systemd/system") {
		return errors.New("systemd does not run here, so nothing was installed: start the cluster with `kaji up`, or let your init system run `kaji server`")
	}
	program, unitPath := filepath.Join(root, installedProgram), filepath.Join(root, unitFile(c.Name))
	for _, dir := range []string{filepath.Dir(program), filepath.Dir(unitPath)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := installProgram(program); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(root, string(c.Dir)), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(unitPath, []byte(unit(c, agentName(root, c), args)), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(out, "installed %s and %s\n", program, unitPath)
	if !here {
		return nil
	}
	if err := remember(c.Dir, args); err != nil {
		return err
	}
	// A process that `kaji up` started hands over; its containers go on.
	if err := daemon.Stop(ctx, c.Dir.PID()); err != nil {
		return err
	}
	for _, words := range [][]string{{"daemon-reload"}, {"enable", unitName(c.Name)}, {"restart", unitName(c.Name)}} {
		if err := systemctl(ctx, words...); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "systemd runs the cluster; `%s` waits until it is ready and makes its context kubectl's\n", c.verb("up"))
	return nil
}

// installProgram copies this program to path, if it is not that very file.
func installProgram(path string) error {
	if same, err := isThis(path); err != nil || same {
		return err
	}
	own, err := this.Path()
	if err != nil {
		return err
	}
	return copyProgram(own, path)
}

// isThis says whether a file is this program.
func isThis(path string) (bool, error) {
	own, err := this.Path()
	if err != nil {
		return false, err
	}
	self, err := os.Stat(own)
	if err != nil {
		return false, err
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(self, there), nil
}

// Uninstall takes the cluster from systemd. Its data and containers stay; the
// program stays as long as another unit needs it.
func Uninstall(ctx context.Context, c Cluster, root string, out io.Writer) error {
	path := filepath.Join(root, unitFile(c.Name))
	if !exists(path) {
		return fmt.Errorf("cluster %s is not installed: there is no %s", c.Name, path)
	}
	if filepath.Clean(root) == "/" && exists("/run/systemd/system") {
		if err := systemctl(ctx, "disable", "--now", unitName(c.Name)); err != nil {
			return err
		}
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	fmt.Fprintf(out, "removed %s\n", path)
	others, err := filepath.Glob(filepath.Join(root, unitDir, "kaji-*.service"))
	if err != nil || len(others) > 0 {
		return err
	}
	program := filepath.Join(root, installedProgram)
	if same, err := isThis(program); err != nil || same {
		if same { // containers and data are still to be removed with it
			fmt.Fprintf(out, "%s stays, since it is this program; `%s` removes containers and data\n", program, c.verb("down --purge"))
		}
		return err
	}
	if err := os.Remove(program); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fmt.Fprintf(out, "removed %s; `%s` removes containers and data\n", program, c.verb("down --purge"))
	return nil
}

// installed says that systemd runs the cluster on this machine.
func installed(c Cluster) bool { return exists("/run/systemd/system") && exists(unitFile(c.Name)) }

func systemctl(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
