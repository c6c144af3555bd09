// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"github.com/spf13/cobra"

	"kaji/internal/app/component"
	"kaji/internal/app/heap"
	"kaji/internal/app/logging"
)

func controllerManagerCommand() *cobra.Command {
	o := &component.ControllerOptions{}
	cmd := &cobra.Command{
		Use:     "controller-manager",
		Aliases: []string{"kube-controller-manager"},
		Short:   "Run the controllers alone (kube-controller-manager)",
		GroupID: "component",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			defer heap.Pace()()
			log := &logging.Options{Verbosity: o.Verbosity, JSON: o.LoggingFormat == "json"}
			return component.Controllers(cmd.Context(), o, log.New(os.Stderr))
		},
	}
	o.AddFlags(cmd.Flags())
	shortHelp(cmd, "kubeconfig", "controllers", "use-service-account-credentials", "root-ca-file", "service-account-private-key-file", "cluster-signing-cert-file", "cluster-signing-key-file", "cluster-cidr", "allocate-node-cidrs", "leader-elect", "secure-port", "feature-gates", "v")
	return cmd
}
