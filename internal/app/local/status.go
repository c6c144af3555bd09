// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"kaji/internal/app/daemon"
)

var serializer = scheme.Codecs.WithoutConversion()

// Status prints how the cluster is.
func Status(ctx context.Context, c Cluster, out io.Writer) error {
	pid, err := daemon.Running(c.Dir.PID())
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	defer table.Flush()
	row := func(name, format string, args ...any) {
		fmt.Fprintf(table, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	if pid == 0 {
		row("cluster", "%s is not running; start it with `kaji up --name %s`", c.Name, c.Name)
		row("data", "%s, %s", c.Dir, size(string(c.Dir)))
		return nil
	}
	row("cluster", "%s, process %d", c.Name, pid)
	row("memory", "%s", memory(pid))
	row("data", "%s, %s", c.Dir, c.sizes())
	row("disk", "%s", c.disk())
	row("log", "%s", c.Dir.Log())
	config, err := c.config()
	if err != nil {
		return err
	}
	row("API server", "%s", config.Host)
	if text, err := c.get(ctx, "/readyz", "verbose"); err != nil {
		row("ready", "no: %v%s", err, failing(text))
	} else {
		row("ready", "yes, %d checks passed", strings.Count(text, "[+]"))
	}
	nodes, err := c.nodes(ctx)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		row("node", "%s, %s", n.Name, describe(n))
		if ports := n.Annotations["kaji.dev/ingress-ports"]; ports != "" {
			row("ingress", "%s, ports %s", n.Name, ports)
		}
		if problem := n.Annotations["kaji.dev/ingress-problem"]; problem != "" {
			row("ingress", "%s, WARNING: %s; Ingresses are not served there (see --ingress-http-port and --ingress-https-port)", n.Name, problem)
		}
	}
	return c.inventory(ctx, row)
}

// failing names the checks that did not pass.
func failing(text string) string {
	var names []string
	for line := range strings.Lines(text) {
		if name, failed := strings.CutPrefix(line, "[-]"); failed {
			name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "; not passed: " + strings.Join(names, ", ")
}

func describe(n *corev1.Node) string {
	state := "not ready"
	if ready(n) {
		state = "ready"
	}
	var addresses []string
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			addresses = append(addresses, a.Address)
		}
	}
	text := fmt.Sprintf("%s, %s, up %s", state, strings.Join(addresses, " "), time.Since(n.CreationTimestamp.Time).Round(time.Second))
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady == (c.Status != corev1.ConditionTrue) {
			text += fmt.Sprintf("; %s: %s", c.Type, c.Message)
		}
	}
	return text
}

// memory reads what a process holds from the kernel.
func memory(pid int) string {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "unknown"
	}
	defer file.Close()
	found := map[string]string{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok {
			found[name] = strings.TrimSpace(value)
		}
	}
	return fmt.Sprintf("%s resident, %s of it anonymous", found["VmRSS"], found["RssAnon"])
}

// size adds up the files below a directory.
func size(dir string) string {
	var total int64
	// What cannot be read is not counted: pods come and go meanwhile.
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return fmt.Sprintf("%.1f MiB", float64(total)/(1<<20))
}

// Logs prints the cluster's log, of one component only if it is named, and with
// follow goes on with what is added until ctx ends.
func Logs(ctx context.Context, c Cluster, component string, follow bool, out io.Writer) error {
	file, err := os.Open(c.Dir.Log())
	if err != nil {
		return fmt.Errorf("cluster %s has no log yet: %w", c.Name, err)
	}
	defer file.Close()
	lines := bufio.NewReader(file)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	rest := ""
	for {
		line, err := lines.ReadString('\n')
		rest += line
		if err == nil {
			if component == "" || strings.Contains(rest, "component="+component) || strings.Contains(rest, `"component":"`+component+`"`) {
				if _, err := io.WriteString(out, rest); err != nil {
					return err
				}
			}
			rest = ""
			continue
		}
		if !follow {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
