// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"kaji/internal/app/addon"
)

func addonCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "addon",
		Short:   "What comes with a cluster: list it, show its manifests",
		GroupID: "cluster",
		Long: `What comes with a cluster are add-ons, each a folder of manifests that is applied when
the cluster starts. Folders of your own in the directory addons of the cluster's data
directory are add-ons as well, applied at each start and when a file changes; one by the
name of another takes its place, so this is how to edit one:

  mkdir -p /var/lib/kaji/kaji/addons/storage
  kaji addon show storage > /var/lib/kaji/kaji/addons/storage/storage.yaml

` + "`kaji up --disable=NAME`" + ` leaves one out.`,
	}
	list := &cobra.Command{Use: "list", Short: "List the add-ons of a cluster", Args: cobra.NoArgs}
	ofList := named(list.Flags())
	list.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := ofList()
		if err != nil {
			return err
		}
		names, err := addon.All(c.Dir.Addons())
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
		for _, name := range names {
			about := addon.About(name)
			if about == "" {
				about = "yours, " + c.Dir.Addons() + "/" + name
			}
			fmt.Fprintf(table, "%s\t%s\n", name, about)
		}
		return table.Flush()
	}
	show := &cobra.Command{Use: "show NAME", Short: "Print the manifests of an add-on", Args: cobra.ExactArgs(1)}
	ofShow := named(show.Flags())
	show.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := ofShow()
		if err != nil {
			return err
		}
		text, err := addon.Text(c.Dir.Addons(), args[0])
		fmt.Fprint(cmd.OutOrStdout(), text)
		return err
	}
	cmd.AddCommand(list, show)
	return cmd
}
