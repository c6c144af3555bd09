// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"github.com/spf13/cobra"

	"kaji/internal/app/component"
	"kaji/internal/app/heap"
	"kaji/internal/app/logging"
	"kaji/internal/scheduler/flags"
)

func schedulerCommand() *cobra.Command {
	o := flags.New()
	cmd := &cobra.Command{
		Use:     "scheduler",
		Aliases: []string{"kube-scheduler"},
		Short:   "Run the scheduler alone (kube-scheduler)",
		GroupID: "component",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			defer heap.Pace()()
			log := &logging.Options{Verbosity: o.Verbosity, JSON: o.LoggingFormat == "json"}
			return component.Scheduler(cmd.Context(), o, log.New(os.Stderr))
		},
	}
	o.AddFlags(cmd.Flags())
	shortHelp(cmd, "config", "kubeconfig", "leader-elect", "secure-port", "feature-gates", "v")
	return cmd
}
