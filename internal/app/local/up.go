// SPDX-License-Identifier: Apache-2.0

// Package local starts, stops and shows the clusters of this machine: what the
// verbs up, down, status and logs do. Each cluster is one process of its own,
// known by its PID file; package cluster is what runs in it.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"kaji/internal/app/daemon"
	"kaji/internal/app/doctor"
	"kaji/internal/app/home"
	"kaji/internal/app/kubeconfig"
	"kaji/internal/app/node"
	"kaji/internal/app/progress"
	"kaji/internal/client"
	"kaji/internal/client/remote"
)

// Cluster names a cluster of this machine.
type Cluster struct {
	Name string
	Dir  home.Dir
	// Ports are those of the machine that it listens on.
	Ports []int
}

// pollPeriod is how often a starting cluster is asked whether it is ready.
const pollPeriod = 25 * time.Millisecond

// Up starts the cluster's process with the arguments of `kaji server` and waits
// until its node is ready, or ctx ends. A cluster that runs already is left
// alone.
func Up(ctx context.Context, c Cluster, args []string, out io.Writer) error {
	display := progress.New(out)
	defer display.Clear()
	pid, err := daemon.Running(c.Dir.PID())
	if err != nil {
		return err
	}
	if pid != 0 {
		display.Done("cluster %s is running already (process %d)", c.Name, pid)
		before, err := Remembered(c.Dir)
		if err != nil {
			return err
		}
		if !sameArguments(before, args) {
			fmt.Fprintf(out, "   It runs with other settings than these: %s. To change them, `%s` first; its data stays.\n", strings.Join(before, " "), c.verb("down"))
		}
		waiting, cancel := context.WithCancel(ctx)
		err = wait(waiting, c, before, display, daemon.Gone(waiting, c.Dir.PID()))
		cancel()
		if errors.Is(err, errEnded) { // it was about to
			display.Done("it has ended")
			if len(args) == 0 {
				args = before
			}
			err = start(ctx, c, args, display)
		}
	} else {
		err = start(ctx, c, args, display)
	}
	if err != nil {
		return err
	}
	path, err := kubeconfig.UserPath()
	if err != nil {
		return err
	}
	config, err := clientcmd.LoadFromFile(c.Dir.AdminKubeconfig())
	if err != nil {
		return err
	}
	if err := kubeconfig.Merge(path, config); err != nil {
		return err
	}
	display.Done("context %s is current in %s", c.Name, path)
	fmt.Fprintf(out, `
Try:
  kaji kubectl get nodes,services -A
  kaji kubectl run hello --image=localhost/kaji --port=8080
  %s
`, c.verb("status"))
	return nil
}

// start starts the cluster's process and waits until all is ready. What a first
// start that failed has left is removed.
func start(ctx context.Context, c Cluster, args []string, display *progress.Display) error {
	if c.Dir.Foreign() {
		return fmt.Errorf("%s is not empty and holds no cluster: choose another --data-dir", c.Dir)
	}
	if err := doctor.Err(doctor.Run(doctor.Config{DataDir: string(c.Dir), Ports: c.Ports})); err != nil {
		return err
	}
	fresh := !c.Dir.Exists()
	if err := remember(c.Dir, args); err != nil {
		return err
	}
	// An old one would lead to a server that is not there yet.
	if err := os.Remove(c.Dir.AdminKubeconfig()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	display.Step("starting")
	var ended <-chan error
	var err error
	if installed(c) {
		err = systemctl(ctx, "start", unitName(c.Name))
	} else {
		_, ended, err = daemon.Start("", append([]string{"server", "--name=" + c.Name}, args...), c.Dir.Log())
	}
	if err == nil {
		err = wait(ctx, c, args, display, ended)
	}
	if err == nil || !fresh {
		return err
	}
	display.Clear()
	return errors.Join(err, undo(context.WithoutCancel(ctx), c))
}

// undo removes what a first start that failed has made.
func undo(ctx context.Context, c Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, 2*stopTime)
	defer cancel()
	if err := Down(ctx, c, true, io.Discard); err != nil {
		return fmt.Errorf("removing what is half done: %w (`%s` tries again)", err, c.verb("down --purge"))
	}
	return nil
}

// sameArguments compares them without their order; none says: as before.
func sameArguments(before, now []string) bool {
	before, now = slices.Clone(before), slices.Clone(now)
	slices.Sort(before)
	slices.Sort(now)
	return len(now) == 0 || slices.Equal(before, now)
}

// remember keeps the arguments, so that the cluster can be started again alike.
func remember(dir home.Dir, args []string) error {
	if err := os.MkdirAll(string(dir), 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(map[string]any{"args": args}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(dir.Settings(), append(data, '\n'), 0o600)
}

// Remembered returns the arguments a cluster was last started with; none when
// it never was.
func Remembered(dir home.Dir) ([]string, error) {
	data, err := os.ReadFile(dir.Settings())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var settings struct {
		Args []string `json:"args"`
	}
	if err := json.Unmarshal(data, &settings); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", dir.Settings(), err)
	}
	return settings.Args, nil
}

// wantedNodes reads from the arguments how many nodes there will be.
func wantedNodes(args []string) int {
	for _, arg := range args {
		if text, ok := strings.CutPrefix(arg, "--nodes="); ok {
			if n, err := strconv.Atoi(text); err == nil {
				return n
			}
		}
	}
	return 1
}

// steps are what a starting cluster reaches, one after the other.
func steps(c Cluster, args []string) []step {
	wanted, plugins := wantedNodes(args), slices.Contains(args, "--pod-network="+node.PodNetworkCNI)
	what, done := "the node", "the node is ready"
	if wanted > 1 {
		what, done = "the nodes", fmt.Sprintf("all %d nodes are ready", wanted)
	}
	if plugins {
		done += ", or waits for the plug-ins of its pod network"
	}
	return []step{
		{"the API server", "the API server is ready", func(ctx context.Context) error {
			_, err := c.get(ctx, "/readyz")
			return err
		}},
		{what, done, func(ctx context.Context) error {
			nodes, err := c.nodes(ctx)
			if err != nil {
				return err
			}
			count := 0
			for _, n := range nodes {
				if ready(n) || plugins && networkMissing(n) {
					count++
				}
			}
			if count < wanted {
				return fmt.Errorf("%d of %d nodes are ready", count, wanted)
			}
			return nil
		}},
	}
}

type step struct {
	what, done string
	reach      func(context.Context) error
}

func wait(ctx context.Context, c Cluster, args []string, display *progress.Display, ended <-chan error) error {
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	for _, s := range steps(c, args) {
		display.Step("waiting for %s", s.what)
		for {
			err := s.reach(ctx)
			if err == nil {
				display.Done("%s", s.done)
				break
			}
			select {
			case <-tick.C:
			case <-ended:
				return fmt.Errorf("%w while starting. Its last words:\n%s", errEnded, lastLines(c.Dir.Log(), 10))
			case <-ctx.Done():
				return fmt.Errorf("%s: not ready in time (%w). The log is %s; its last words:\n%s", s.what, err, c.Dir.Log(), lastLines(c.Dir.Log(), 5))
			}
		}
	}
	return nil
}

// errEnded says that the cluster's process is gone.
var errEnded = errors.New("the cluster ended")

// lastLines returns the end of a file for an error message.
func lastLines(path string, n int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return "  " + strings.Join(lines[max(0, len(lines)-n):], "\n  ")
}

func (c Cluster) config() (*rest.Config, error) { return kubeconfig.REST(c.Dir.AdminKubeconfig()) }

// get asks the API server for a path, with parameters that need no value.
func (c Cluster) get(ctx context.Context, path string, parameters ...string) (string, error) {
	config, err := c.config()
	if err != nil {
		return "", err
	}
	config.GroupVersion, config.NegotiatedSerializer = &corev1.SchemeGroupVersion, serializer
	server, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		return "", err
	}
	request := server.Get().AbsPath(path)
	for _, p := range parameters {
		request = request.Param(p, "")
	}
	data, err := request.DoRaw(ctx)
	return string(data), err
}

func (c Cluster) nodes(ctx context.Context) ([]*corev1.Node, error) {
	config, err := c.config()
	if err != nil {
		return nil, err
	}
	conn, err := remote.New(config)
	if err != nil {
		return nil, err
	}
	return client.For[*corev1.Node](conn).List(ctx, "", metav1.ListOptions{})
}

// networkMissing says that a node waits for the plug-ins of its pod network, which
// may come as pods of the machine's network.
func networkMissing(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionFalse && strings.Contains(c.Message, "NetworkPluginNotReady")
		}
	}
	return false
}

func ready(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
