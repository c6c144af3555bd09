// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/exec"
	"syscall"

	"github.com/spf13/cobra"

	"kaji/bench"
	"kaji/internal/app/program"
)

// ownNetwork, in the environment, says that the process has a network namespace
// of its own.
const ownNetwork = "KAJI_BENCH_OWN_NETWORK"

func benchServicesCommand() *cobra.Command {
	var f benchFlags
	load := bench.DefaultServices()
	cmd := &cobra.Command{
		Use:   "services",
		Short: "Measure a service proxy: programming latency, memory, connections (as root)",
		Long: `Measure a service proxy: how long it takes from a write at the API until the
kernel does it, what that costs, and what connections cost through its rules.

It runs in a network namespace of its own, with an API server of this program.
--proxy names a kube-proxy of upstream's to measure in place of the own one.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Getuid() != 0 {
				return errNeedsRoot
			}
			var err error
			if load.Binary, err = program.Path(); err != nil {
				return err
			}
			if os.Getenv(ownNetwork) == "" {
				return again(cmd, load.Binary)
			}
			return f.run(cmd, load.Run)
		},
	}
	f.add(cmd, "")
	cmd.Flags().IntSliceVar(&load.Counts, "services", load.Counts, "numbers of Services to measure with")
	cmd.Flags().IntVar(&load.Changes, "changes", load.Changes, "times to change the endpoints of one Service")
	cmd.Flags().IntVar(&load.Connections, "connections", load.Connections, "connections to make in each of the ways")
	cmd.Flags().IntVar(&load.Workers, "workers", load.Workers, "requests and connections at the same time")
	cmd.Flags().StringVar(&load.Proxy, "proxy", "", "a kube-proxy to measure")
	return cmd
}

// again runs this command line in a new network namespace.
func again(cmd *cobra.Command, self string) error {
	child := exec.CommandContext(cmd.Context(), self, os.Args[1:]...)
	child.Env = append(os.Environ(), ownNetwork+"=1")
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, cmd.OutOrStdout(), cmd.ErrOrStderr()
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	child.Cancel = func() error { return child.Process.Signal(syscall.SIGTERM) }
	return child.Run()
}

func benchHTTPCommand() *cobra.Command {
	var f benchFlags
	var pids []int
	load := bench.HTTP{Requests: 20000, Workers: 32}
	cmd := &cobra.Command{
		Use:     "http URL",
		Short:   "Measure requests to an Ingress or anything else that speaks HTTP",
		Example: `  kaji bench http http://10.9.0.1/ --host www.example.org --pid $(cat /var/lib/kaji/default/kaji.pid)`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			load.URL = args[0]
			if load.Process, err = bench.Watch(pids...); err != nil {
				return err
			}
			return f.run(cmd, load.Run)
		},
	}
	f.add(cmd, "")
	cmd.Flags().IntSliceVar(&pids, "pid", nil, "processes of this machine whose CPU time counts")
	cmd.Flags().StringVar(&load.Host, "host", "", "the host to ask for, instead of the URL's")
	cmd.Flags().IntVar(&load.Requests, "requests", load.Requests, "requests to send")
	cmd.Flags().IntVar(&load.Workers, "workers", load.Workers, "requests at the same time")
	cmd.Flags().BoolVar(&load.Fresh, "fresh", false, "make a connection for each request")
	return cmd
}

func benchDNSCommand() *cobra.Command {
	var f benchFlags
	var pids []int
	load := bench.DNS{Questions: 50000, Workers: 16}
	cmd := &cobra.Command{
		Use:     "dns SERVER NAME...",
		Short:   "Measure questions to a name server",
		Example: `  kaji bench dns 10.96.0.10 kubernetes.default.svc.cluster.local`,
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			load.Server, load.Names = args[0], args[1:]
			if load.Process, err = bench.Watch(pids...); err != nil {
				return err
			}
			return f.run(cmd, func(ctx context.Context, r *bench.Report) error { return load.Run(ctx, r) })
		},
	}
	f.add(cmd, "")
	cmd.Flags().IntSliceVar(&pids, "pid", nil, "processes of this machine whose CPU time counts")
	cmd.Flags().IntVar(&load.Questions, "questions", load.Questions, "questions to ask")
	cmd.Flags().IntVar(&load.Workers, "workers", load.Workers, "questions at the same time")
	return cmd
}
