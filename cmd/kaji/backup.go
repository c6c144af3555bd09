// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"kaji/internal/app/local"
)

func backupCommand() *cobra.Command {
	return onCluster(&cobra.Command{
		Use:   "backup FILE",
		Short: "Save a whole cluster to a file: its objects, keys and settings",
		Long: `Save a whole cluster, running or stopped, to a file: all objects as they stand at
one moment, keys and certificates, and the flags it was started with. What lies in
volumes is not saved.`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, cmd *cobra.Command, c local.Cluster, args []string) error {
		return local.Backup(ctx, c, args[0], cmd.OutOrStdout())
	})
}

func restoreCommand() *cobra.Command {
	return onCluster(&cobra.Command{
		Use:   "restore FILE",
		Short: "Make a cluster of a backup, here or on another machine",
		Args:  cobra.ExactArgs(1),
	}, func(ctx context.Context, cmd *cobra.Command, c local.Cluster, args []string) error {
		return local.Restore(ctx, c, args[0], cmd.OutOrStdout())
	})
}

func upgradeCommand() *cobra.Command {
	return onCluster(&cobra.Command{
		Use:   "upgrade",
		Short: "Let this program take a running cluster over; its pods go on running",
		Long: `Let this program, usually a newer one, take a running cluster over from the program
that runs it. Containers and their traffic go on meanwhile; the API is away for about
a second. The store and the program before are kept in the data directory; when the
cluster does not come up, the program before is started again.`,
		Args: cobra.NoArgs,
	}, func(ctx context.Context, cmd *cobra.Command, c local.Cluster, _ []string) error {
		return local.Upgrade(ctx, c, cmd.OutOrStdout())
	})
}

// onCluster completes a verb of root's on one cluster.
func onCluster(cmd *cobra.Command, run func(context.Context, *cobra.Command, local.Cluster, []string) error) *cobra.Command {
	cmd.GroupID = "cluster"
	cluster := named(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if os.Getuid() != 0 {
			return errNeedsRoot
		}
		c, err := cluster()
		if err != nil {
			return err
		}
		return run(cmd.Context(), cmd, c, args)
	}
	return cmd
}
