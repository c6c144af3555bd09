// SPDX-License-Identifier: Apache-2.0

// Command kaji is a whole Kubernetes in one program. Each verb stands in a file
// of its own and only reads flags; the work is done in package app and below.
//
// Called by the name of an upstream binary (kube-apiserver, kubectl, …) it
// behaves as that one.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/component-base/version"

	"kaji/internal/app/program"
	"kaji/internal/cni/command"
)

// upstream maps argv[0] to the verb that stands in for it.
var upstream = map[string]string{
	"kubectl": "kubectl",
	"etcd":    "etcd",
	"kubelet": "kubelet",

	"cloud-controller-manager": "cloud-controller-manager",
}

// versioned are the verbs that say which Kubernetes they are with --version, as
// upstream's programs do.
var versioned = []string{"apiserver", "controller-manager", "cloud-controller-manager", "scheduler", "proxy", "kubelet"}

func main() {
	args := os.Args[1:]
	name := strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe")
	if verb, ok := upstreamVerb(name); ok {
		args = append([]string{verb}, args...)
	}
	if name == command.Name {
		command.Main(program.Release())
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := completeKubectl(args); err != nil {
		fmt.Fprintln(os.Stderr, "kaji:", err)
		os.Exit(1)
	}
	root := newRoot()
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "kaji:", err)
		os.Exit(1)
	}
}

func upstreamVerb(name string) (string, bool) {
	if verb, ok := upstream[name]; ok {
		return verb, true
	}
	verb, ok := strings.CutPrefix(name, "kube-")
	return verb, ok
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "kaji",
		Short:         "kaji is a whole Kubernetes in one program",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddGroup(
		&cobra.Group{ID: "cluster", Title: "A cluster on this machine:"},
		&cobra.Group{ID: "component", Title: "Components, alone:"},
		&cobra.Group{ID: "tool", Title: "Tools:"},
	)
	root.AddCommand(commands()...)
	for _, c := range root.Commands() {
		if slices.Contains(versioned, c.Name()) {
			c.Version = version.Get().GitVersion
			c.SetVersionTemplate("Kubernetes {{.Version}}\n")
		}
	}
	root.CompletionOptions.DisableDefaultCmd = true // there is one of ours
	return root
}

func commands() []*cobra.Command {
	return []*cobra.Command{
		upCommand(),
		downCommand(),
		statusCommand(),
		logsCommand(),
		kubeconfigCommand(),
		upgradeCommand(),
		backupCommand(),
		restoreCommand(),
		addonCommand(),
		installCommand(),
		uninstallCommand(),
		serverCommand(),
		agentCommand(),
		tokenCommand(),
		apiserverCommand(),
		controllerManagerCommand(),
		cloudControllerManagerCommand(),
		schedulerCommand(),
		runtimeCommand(),
		cniCommand(),
		kubeletCommand(),
		proxyCommand(),
		etcdCommand(),
		storeCommand(),
		imageCommand(),
		kubectlCommand(),
		completionCommand(),
		versionCommand(),
		doctorCommand(),
		benchCommand(),
	}
}
