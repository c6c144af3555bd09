// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"kaji/bench"
	"kaji/internal/app/program"
)

// benchFlags are what every bench has: where it runs and how it reports.
type benchFlags struct {
	kubeconfig, output string
	pid                []int
	quiet              bool
}

func (f *benchFlags) add(cmd *cobra.Command, target string) {
	if target != "" {
		cmd.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", target)
		cmd.Flags().IntSliceVar(&f.pid, "pid", nil, "processes of this machine whose CPU time and memory are the target's")
	}
	cmd.Flags().StringVarP(&f.output, "output", "o", "table", "how to report: table or json, a document a line")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "say nothing before the report")
}

// target is the one that flags name; nil when none does.
func (f *benchFlags) target(name string) (*bench.Target, error) {
	if f.kubeconfig == "" {
		if len(f.pid) > 0 {
			return nil, errors.New("--pid needs --kubeconfig")
		}
		return nil, nil
	}
	p, err := bench.Watch(f.pid...)
	if err != nil {
		return nil, err
	}
	return bench.FromKubeconfig(name, f.kubeconfig, p)
}

// run measures and reports, also what was measured before a failure.
func (f *benchFlags) run(cmd *cobra.Command, measure func(context.Context, *bench.Report) error) error {
	if f.output != "table" && f.output != "json" {
		return fmt.Errorf("--output is table or json, not %q", f.output)
	}
	report := bench.NewReport(cmd.ErrOrStderr())
	if f.quiet {
		report = bench.NewReport(nil)
	}
	err := measure(cmd.Context(), report)
	write := report.Table
	if f.output == "json" {
		write = report.JSON
	}
	return errors.Join(err, write(cmd.OutOrStdout()))
}

func benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "bench",
		Short:   "Measure an API server, a scheduler, a service proxy, a container runtime or a whole cluster",
		GroupID: "tool",
		Long: `Measure an API server, a scheduler, a service proxy, custom resources, container
runtimes, name servers, Ingresses or a whole cluster.

Beside rates and latencies it reports the CPU time an operation costs and the
resident memory of processes on this machine, which compare well even when the
machine does other things meanwhile.`,
	}
	cmd.AddCommand(benchAPICommand(), benchSchedulerCommand(), benchControllersCommand(), benchCRDCommand(), benchClusterCommand(), benchRuntimeCommand(), benchNodeCommand(), benchServicesCommand(), benchHTTPCommand(), benchDNSCommand())
	return cmd
}

func benchAPICommand() *cobra.Command {
	var f, vs benchFlags
	load := bench.DefaultAPI()
	cmd := &cobra.Command{
		Use:   "api --kubeconfig FILE [--pid N] [--vs FILE [--vs-pid N]]",
		Short: "Measure the verbs of any API server, or of two in one run",
		Long: `Measure the verbs of any API server, or of two in one run.

It makes pods that no scheduler takes in a namespace of its own, reads, changes,
lists, watches and deletes them. Operations: ` + strings.Join(bench.Operations(), ", ") + `.`,
		Example: `  kaji bench api --kubeconfig ~/.kube/config --pid $(cat /var/lib/kaji/default/kaji.pid)
  kaji bench api --kubeconfig a.kubeconfig --vs b.kubeconfig --only get,"list protobuf"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var targets []*bench.Target
			for _, flags := range []*benchFlags{&f, &vs} {
				t, err := flags.target(strings.TrimSuffix(filepath.Base(flags.kubeconfig), filepath.Ext(flags.kubeconfig)))
				if err != nil {
					return err
				}
				if t != nil {
					targets = append(targets, t)
				}
			}
			if f.kubeconfig == "" {
				return errors.New("--kubeconfig says which API server to measure")
			}
			return f.run(cmd, func(ctx context.Context, report *bench.Report) error {
				for _, t := range targets {
					if err := load.Run(ctx, t, report); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	f.add(cmd, "kubeconfig of the API server to measure")
	cmd.Flags().StringVar(&vs.kubeconfig, "vs", "", "kubeconfig of an API server to compare it with")
	cmd.Flags().IntSliceVar(&vs.pid, "vs-pid", nil, "processes of this machine that are the other's")
	cmd.Flags().IntVar(&load.Objects, "objects", load.Objects, "pods to make, read, change and delete")
	cmd.Flags().IntVar(&load.Lists, "lists", load.Lists, "times to list them, in each of the ways")
	cmd.Flags().IntVar(&load.Watchers, "watchers", load.Watchers, "watches of one object")
	cmd.Flags().IntVar(&load.Events, "events", load.Events, "changes of that object")
	cmd.Flags().IntVar(&load.Workers, "workers", load.Workers, "requests at the same time")
	cmd.Flags().DurationVar(&load.Idle, "idle", load.Idle, "how long to leave the server alone")
	cmd.Flags().StringSliceVar(&load.Only, "only", nil, "operations to measure, all when empty")
	return cmd
}

func benchSchedulerCommand() *cobra.Command {
	var f benchFlags
	load := bench.DefaultScheduler()
	cmd := &cobra.Command{
		Use:   "scheduler",
		Short: "Measure how fast pods are bound, on nodes that exist as objects only",
		Long: `Measure how fast pods are bound, on nodes that exist as objects only.

Without --kubeconfig an API server and a scheduler of this program are started
for each shape, the scheduler when all pods are there. With it the scheduler of
that cluster is measured while pods are made; --pid names its process. Other
nodes of that cluster take pods, too. Shapes: ` + strings.Join(bench.Shapes(), ", ") + `.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := f.target("target")
			if err != nil {
				return err
			}
			if load.Binary, err = program.Path(); err != nil {
				return err
			}
			return f.run(cmd, func(ctx context.Context, report *bench.Report) error { return load.Run(ctx, t, report) })
		},
	}
	f.add(cmd, "kubeconfig of a cluster whose scheduler to measure")
	cmd.Flags().IntVar(&load.Nodes, "nodes", load.Nodes, "nodes to make")
	cmd.Flags().IntVar(&load.Pods, "pods", load.Pods, "pods to make; shapes of one pod a node make no more than nodes")
	cmd.Flags().IntVar(&load.Workers, "workers", load.Workers, "requests at the same time")
	cmd.Flags().StringVar(&load.Upstream, "scheduler", "", "a kube-scheduler to measure instead of this program's")
	cmd.Flags().StringSliceVar(&load.Shapes, "shapes", nil, "shapes to measure, all when empty")
	return cmd
}

func benchControllersCommand() *cobra.Command {
	var f benchFlags
	load := bench.DefaultControllers()
	cmd := &cobra.Command{
		Use:   "controllers",
		Short: "Measure a controller manager: idle, a rolling update, failing pods, a namespace's deletion",
		Long: `Measure a controller manager: idle, a rolling update, pods that fail, a
namespace's deletion; and how many writes it needs.

Without --kubeconfig an API server and a controller manager of this program are
started. With it those of that cluster are measured; --pid names the controller
manager. Pods exist as objects only and are made ready by the measurement. The
writes are those that the API server counted, less the measurement's own.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := f.target("target")
			if err != nil {
				return err
			}
			if load.Binary, err = program.Path(); err != nil {
				return err
			}
			return f.run(cmd, func(ctx context.Context, report *bench.Report) error { return load.Run(ctx, t, report) })
		},
	}
	f.add(cmd, "kubeconfig of a cluster whose controllers to measure")
	cmd.Flags().IntVar(&load.Deployments, "deployments", load.Deployments, "Deployments that stand idle")
	cmd.Flags().IntVar(&load.Pods, "pods", load.Pods, "pods of the Deployment that is updated")
	cmd.Flags().IntVar(&load.Failing, "failing", load.Failing, "pods that fail, half of ReplicaSets, half of Jobs")
	cmd.Flags().StringVar(&load.Upstream, "controller-manager", "", "a kube-controller-manager to measure instead of this program's")
	cmd.Flags().IntVar(&load.Objects, "objects", load.Objects, "objects of the namespace that is deleted")
	cmd.Flags().IntVar(&load.Workers, "workers", load.Workers, "requests at the same time")
	cmd.Flags().DurationVar(&load.Idle, "idle", load.Idle, "how long the controllers are left alone")
	return cmd
}

func benchCRDCommand() *cobra.Command {
	var f benchFlags
	load := bench.DefaultCRD()
	cmd := &cobra.Command{
		Use:   "crd",
		Short: "Measure what custom resource definitions and their objects cost",
		Long: `Measure what custom resource definitions and their objects cost.

Without --kubeconfig an API server of this program is started for it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := f.target("target")
			if err != nil {
				return err
			}
			if load.Binary, err = program.Path(); err != nil {
				return err
			}
			return f.run(cmd, func(ctx context.Context, report *bench.Report) error { return load.Run(ctx, t, report) })
		},
	}
	f.add(cmd, "kubeconfig of the API server to measure")
	cmd.Flags().IntVar(&load.Definitions, "definitions", load.Definitions, "definitions to make")
	cmd.Flags().IntVar(&load.Bytes, "bytes", load.Bytes, "bytes of JSON in the largest schemas; the smallest have an eighth")
	cmd.Flags().IntVar(&load.Versions, "versions", load.Versions, "versions of each definition, which share its bytes")
	cmd.Flags().IntVar(&load.Rules, "rules", load.Rules, "CEL rules of each version of a definition")
	cmd.Flags().IntVar(&load.Objects, "objects", load.Objects, "objects to make of one definition, and pods before and after")
	cmd.Flags().IntVar(&load.Workers, "workers", load.Workers, "requests at the same time")
	return cmd
}

func benchRuntimeCommand() *cobra.Command {
	var f benchFlags
	load := bench.DefaultRuntime()
	cmd := &cobra.Command{
		Use:   "runtime [--endpoint SOCKET] [--runtime-pid N]",
		Short: "Measure a container runtime behind the CRI: starts, removals, memory a pod (as root)",
		Long: `Measure a container runtime behind the Container Runtime Interface, this program's
(kaji runtime) or another: starts of pods with one container, one by one and many
at once, and their removal. With --runtime-pid also the CPU time of the runtime
and its helpers, and the memory (the proportional set size) that a pod takes
beside its workload.`,
		Example: `  kaji bench runtime --runtime-pid $(pgrep -xf 'kaji runtime')
  kaji bench runtime --endpoint unix:///run/containerd/containerd.sock --runtime-pid $(pidof containerd) --image docker.io/library/busybox --host-network`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Getuid() != 0 {
				return errNeedsRoot
			}
			return f.run(cmd, load.Run)
		},
	}
	f.add(cmd, "")
	cmd.Flags().StringVar(&load.Endpoint, "endpoint", load.Endpoint, "socket of the runtime")
	cmd.Flags().IntVar(&load.PID, "runtime-pid", 0, "process of the runtime")
	cmd.Flags().StringVar(&load.Image, "image", load.Image, "image of the pods")
	cmd.Flags().StringSliceVar(&load.Command, "command", load.Command, "what the pods run; it must not end")
	cmd.Flags().IntVar(&load.Pods, "pods", load.Pods, "pods to start in each of the ways")
	cmd.Flags().IntVar(&load.AtOnce, "at-once", load.AtOnce, "pods that start together")
	cmd.Flags().BoolVar(&load.HostNetwork, "host-network", false, "leave the pods in the host's network")
	return cmd
}

func benchNodeCommand() *cobra.Command {
	var f benchFlags
	load := bench.DefaultNode()
	cmd := &cobra.Command{
		Use:   "node [--kubelet FILE] [--endpoint SOCKET --runtime-pid N]",
		Short: "Measure a node agent: starts of pods, status writes, idle pods, restart, probes (as root)",
		Long: `Measure a node agent, this program's or upstream's kubelet (--kubelet), over a
container runtime, this program's or the one of a socket: the time from a pod's
assignment until it is Running, one at a time and many at once; statuses written
in the life of a pod; the cost of many pods that do nothing; a restart of the
agent over them; and HTTP probes. API server, runtime and agent are processes of
their own. The network is this machine's.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if os.Getuid() != 0 {
				return errNeedsRoot
			}
			if load.Binary, err = program.Path(); err != nil {
				return err
			}
			return f.run(cmd, load.Run)
		},
	}
	f.add(cmd, "")
	cmd.Flags().StringVar(&load.Upstream, "kubelet", "", "kubelet to measure instead of this program's agent")
	cmd.Flags().StringVar(&load.Endpoint, "endpoint", "", "socket of the runtime; one of this program's is started when empty")
	cmd.Flags().IntVar(&load.PID, "runtime-pid", 0, "process of the runtime")
	cmd.Flags().StringVar(&load.Image, "image", load.Image, "image of the pods, with a shell")
	cmd.Flags().StringSliceVar(&load.Command, "command", load.Command, "what idle pods run; it must not end")
	cmd.Flags().IntVar(&load.Serial, "serial", load.Serial, "pods that start one at a time")
	cmd.Flags().IntVar(&load.AtOnce, "at-once", load.AtOnce, "pods that start together")
	cmd.Flags().IntSliceVar(&load.Pods, "pods", load.Pods, "numbers of pods that stand idle")
	cmd.Flags().DurationVar(&load.Idle, "idle", load.Idle, "how long they are left alone")
	cmd.Flags().DurationVar(&load.CrashFor, "crash-for", load.CrashFor, "how long pods fail again and again")
	cmd.Flags().IntVar(&load.Probes, "probes", load.Probes, "HTTP probes a second; none when zero")
	return cmd
}

func benchClusterCommand() *cobra.Command {
	var f benchFlags
	load := bench.DefaultCluster("localhost/kaji")
	cmd := &cobra.Command{
		Use:   "cluster [-- FLAGS OF UP]",
		Short: "Measure a whole new cluster: start, pods, idle cost (as root)",
		Long: `Measure a whole new cluster named bench: from exec to ready, the first pod, many
pods at once, and what it costs idle. It is removed with its data afterwards.
Another cluster on this machine needs other ports; arguments after -- go to up.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if os.Getuid() != 0 {
				return errNeedsRoot
			}
			var err error
			if load.Binary, err = program.Path(); err != nil {
				return err
			}
			load.Args = args
			return f.run(cmd, load.Run)
		},
	}
	f.add(cmd, "")
	cmd.Flags().IntVar(&load.Pods, "pods", load.Pods, "pods to start at once")
	cmd.Flags().StringVar(&load.Image, "image", load.Image, "image of the pods; its entrypoint gets the argument pause")
	cmd.Flags().DurationVar(&load.Idle, "idle", load.Idle, "how long to leave the cluster alone")
	return cmd
}
