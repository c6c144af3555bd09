// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"kaji/internal/app/local"
)

func installCommand() *cobra.Command {
	f := newClusterFlags()
	root := "/"
	cmd := &cobra.Command{
		Use:     "install",
		Short:   "Let systemd run a cluster, now and after each start of the machine",
		GroupID: "cluster",
		Long: `Copy this program to /usr/local/bin and let systemd run the cluster with it, now and
after each start of the machine. Flags are those of up; without any the cluster runs as
it did before. Where it is installed already, this program takes over; pods go on.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Getuid() != 0 {
				return errNeedsRoot
			}
			dir, err := f.dir()
			if err != nil {
				return err
			}
			args := given(cmd.Flags())
			if len(args) == 0 {
				if args, err = remembered(dir); err != nil {
					return err
				}
			}
			if dir.Foreign() {
				return errors.New(string(dir) + " is not empty and holds no cluster: choose another --data-dir")
			}
			cluster := local.Cluster{Name: f.name, Dir: dir}
			if _, args, err = local.Place(cluster, f.network, args); err != nil {
				return err
			}
			return local.Install(cmd.Context(), cluster, root, args, cmd.OutOrStdout())
		},
	}
	f.add(cmd, "root")
	cmd.Flags().StringVar(&root, "root", root, "directory that stands for the machine's root; another than / gets the files only")
	return cmd
}

func uninstallCommand() *cobra.Command {
	root := "/"
	cmd := onCluster(&cobra.Command{
		Use:   "uninstall",
		Short: "Take a cluster from systemd; its data stays",
		Args:  cobra.NoArgs,
	}, func(ctx context.Context, cmd *cobra.Command, c local.Cluster, _ []string) error {
		return local.Uninstall(ctx, c, root, cmd.OutOrStdout())
	})
	cmd.Flags().StringVar(&root, "root", root, "directory that stands for the machine's root")
	return cmd
}
