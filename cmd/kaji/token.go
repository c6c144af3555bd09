// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/spf13/cobra"

	"kaji/internal/app/agent"
)

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Tokens that let machines join a cluster", GroupID: "cluster"}
	create := &cobra.Command{Use: "create", Short: "Make a token and print the command that joins with it", Args: cobra.NoArgs}
	cluster := named(create.Flags())
	ttl := create.Flags().Duration("ttl", 24*time.Hour, "how long the token works")
	create.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := cluster()
		if err != nil {
			return err
		}
		return agent.CreateToken(cmd.Context(), c.Dir.AdminKubeconfig(), *ttl, cmd.OutOrStdout())
	}
	cmd.AddCommand(create)
	return cmd
}
