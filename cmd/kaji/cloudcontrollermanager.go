// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"github.com/spf13/cobra"

	"kaji/internal/app/component"
	"kaji/internal/app/logging"
)

func cloudControllerManagerCommand() *cobra.Command {
	o := &component.CloudOptions{}
	cmd := &cobra.Command{
		Use:     "cloud-controller-manager",
		Short:   "Run the controllers of nodes and load balancers of a cloud (cloud-controller-manager)",
		GroupID: "component",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := &logging.Options{Verbosity: o.Verbosity, JSON: o.LoggingFormat == "json"}
			return component.Cloud(cmd.Context(), o, log.New(os.Stderr))
		},
	}
	o.AddFlags(cmd.Flags())
	shortHelp(cmd, "kubeconfig", "cloud-provider", "cloud-config", "cluster-name", "controllers", "leader-elect", "secure-port", "v")
	return cmd
}
