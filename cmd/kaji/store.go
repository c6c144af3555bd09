// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"kaji/internal/app/backup"
	"kaji/internal/app/logging"
	"kaji/internal/store/snapshot"
)

func storeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "store",
		Short:   "Save, check and restore the embedded store",
		GroupID: "tool",
	}
	cmd.AddCommand(storeSnapshotCommand(), storeCheckCommand(), storeRestoreCommand())
	return cmd
}

func storeSnapshotCommand() *cobra.Command {
	var config, dir string
	log := &logging.Options{}
	cmd := &cobra.Command{
		Use:   "snapshot FILE",
		Short: "Save the store to a file, of a running server (--kubeconfig) or of a stopped one (--data-dir)",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (config == "") == (dir == "") {
				return errors.New("give --kubeconfig for a running server or --data-dir for a stopped one")
			}
			info, err := snapshot.Info{}, error(nil)
			if config != "" {
				info, err = backup.Online(cmd.Context(), config, args[0])
			} else {
				info, err = backup.Offline(cmd.Context(), dir, args[0], log.New(os.Stderr))
			}
			return tell(cmd.OutOrStdout(), "saved", info, err)
		},
	}
	cmd.Flags().StringVar(&config, "kubeconfig", "", "kubeconfig of an administrator of the running server")
	cmd.Flags().StringVar(&dir, "data-dir", "", "data directory of the stopped server")
	log.AddFlags(cmd.Flags())
	return cmd
}

func storeCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Read a whole snapshot and verify its checksum",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := backup.Check(cmd.Context(), args[0])
			return tell(cmd.OutOrStdout(), "whole", info, err)
		},
	}
}

func storeRestoreCommand() *cobra.Command {
	var dir string
	log := &logging.Options{}
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make the store of a data directory that has none from a snapshot",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := backup.Restore(cmd.Context(), args[0], dir, log.New(os.Stderr))
			return tell(cmd.OutOrStdout(), "restored", info, err)
		},
	}
	cmd.Flags().StringVar(&dir, "data-dir", "", "data directory of the server that is to start from the snapshot")
	_ = cmd.MarkFlagRequired("data-dir") // fails for unknown flags only
	log.AddFlags(cmd.Flags())
	return cmd
}

func tell(out io.Writer, what string, info snapshot.Info, err error) error {
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s: revision %d, %d keys, %d bytes, sha256 %s\n", what, info.Revision, info.Keys, info.Bytes, info.SHA256)
	return err
}
