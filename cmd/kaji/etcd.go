// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"github.com/spf13/cobra"

	"kaji/internal/app/etcd"
	"kaji/internal/app/logging"
)

func etcdCommand() *cobra.Command {
	var o *etcd.Options
	log := &logging.Options{}
	cmd := &cobra.Command{
		Use:     "etcd",
		Short:   "Serve the embedded store by etcd's API (etcd)",
		GroupID: "component",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return etcd.Run(cmd.Context(), o, log.New(os.Stderr))
		},
	}
	o = etcd.AddFlags(cmd.Flags())
	log.AddFlags(cmd.Flags())
	shortHelp(cmd, "name", "data-dir", "listen-client-urls", "advertise-client-urls", "cert-file", "key-file", "trusted-ca-file", "client-cert-auth")
	return cmd
}
