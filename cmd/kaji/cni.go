// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"kaji/internal/app/program"
	"kaji/internal/cni/command"
)

func cniCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "cni",
		Short:   "The embedded pod network as a plug-in, for other container runtimes",
		GroupID: "component",
		Long: `Answer one call of the Container Network Interface, as containerd, CRI-O and other
runtimes make it: the command is in the variable CNI_COMMAND, the configuration on
standard input. Runtimes find it as the program kaji-cni:

  ln -s "$(command -v kaji)" /opt/cni/bin/kaji-cni

A configuration, such as /etc/cni/net.d/10-kaji.conflist:

  {"cniVersion": "1.1.0", "name": "pods", "plugins": [{
    "type": "kaji-cni",
    "podCIDRs": ["10.244.1.0/24"],
    "clusterCIDRs": ["10.244.0.0/16"],
    "capabilities": {"portMappings": true, "bandwidth": true}}]}

podCIDRs are the ranges of this node's pods, one a family; clusterCIDRs those that
see pods by their own addresses; mtu is that of the default route's link when it is
left out.`,
		Args: cobra.NoArgs,
		Run:  func(*cobra.Command, []string) { command.Main(program.Release()) },
	}
}
