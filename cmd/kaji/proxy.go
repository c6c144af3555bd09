// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"kaji/internal/app/component"
	"kaji/internal/app/logging"
	"kaji/internal/proxy/flags"
)

func proxyCommand() *cobra.Command {
	o := flags.New()
	cmd := &cobra.Command{
		Use:     "proxy",
		Aliases: []string{"kube-proxy"},
		Short:   "Run the service proxy alone (kube-proxy)",
		GroupID: "component",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%q does not take any arguments, got %q", "kube-proxy", args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Getuid() != 0 {
				return errNeedsRoot
			}
			log := &logging.Options{Verbosity: int(o.Verbosity), JSON: o.Configuration.Logging.Format == "json"}
			return component.Proxy(cmd.Context(), o, log.New(os.Stderr))
		},
	}
	o.AddFlags(cmd.Flags())
	shortHelp(cmd, "config", "kubeconfig", "hostname-override", "cluster-cidr", "proxy-mode", "healthz-bind-address", "metrics-bind-address", "feature-gates", "v")
	return cmd
}
