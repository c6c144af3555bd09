// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"kaji/internal/app/component"
	"kaji/internal/app/logging"
	"kaji/internal/kubelet/flags"
)

func kubeletCommand() *cobra.Command {
	o := flags.New()
	cmd := &cobra.Command{
		Use:     "kubelet",
		Short:   "Run the node agent alone, over any container runtime (kubelet)",
		GroupID: "component",
		Long: `Run the node agent alone, over the container runtime of a CRI socket, for any
API server. It takes upstream's configuration file, drop-in files and flags;
flags override files.`,
		// The command line is laid over the configuration file once that is read.
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmd.Flags().Parse(args); err != nil {
				return err
			}
			if help, _ := cmd.Flags().GetBool("help"); help {
				return cmd.Help()
			}
			if asked, _ := cmd.Flags().GetBool("version"); asked {
				fmt.Fprintf(cmd.OutOrStdout(), "Kubernetes %s\n", cmd.Version)
				return nil
			}
			if rest := cmd.Flags().Args(); len(rest) > 0 {
				return cobra.NoArgs(cmd, rest)
			}
			if os.Getuid() != 0 {
				return errNeedsRoot
			}
			if err := component.SettleKubelet(o, args, (&logging.Options{Verbosity: o.Verbosity}).New(os.Stderr)); err != nil {
				return err
			}
			c := o.Configuration.Logging
			log := &logging.Options{Verbosity: max(o.Verbosity, int(c.Verbosity)), JSON: c.Format == "json"}
			return component.Kubelet(cmd.Context(), o, args, log.New(os.Stderr))
		},
	}
	o.AddFlags(cmd.Flags())
	shortHelp(cmd, "config", "config-dir", "kubeconfig", "bootstrap-kubeconfig", "hostname-override", "node-ip", "node-labels", "root-dir", "cert-dir", "container-runtime-endpoint", "cluster-dns", "cluster-domain", "feature-gates", "v")
	return cmd
}
