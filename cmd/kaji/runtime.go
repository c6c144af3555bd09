// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/component-base/version"

	"kaji/internal/app/engine"
	"kaji/internal/app/logging"
)

func runtimeCommand() *cobra.Command {
	c := engine.Config{
		Listen: "unix:///run/kaji/kaji.sock", Root: "/var/lib/kaji/runtime", State: "/run/kaji/runtime",
		CNIConfDir: "/etc/cni/net.d", CNIBinDirs: []string{"/opt/cni/bin"}, CgroupDriver: "cgroupfs", CgroupRoot: "/kaji-runtime",
		SeccompRoot: "/var/lib/kubelet/seccomp", CDIDirs: []string{"/etc/cdi", "/var/run/cdi"}, HostsDir: "/etc/containerd/certs.d", StreamAddress: "127.0.0.1:0",
	}
	var cidrs []string
	var log logging.Options
	cmd := &cobra.Command{
		Use:     "runtime",
		Short:   "Run the container runtime alone, behind the Container Runtime Interface",
		GroupID: "component",
		Long: `Run the container runtime alone and serve the Container Runtime Interface v1 on a
socket, for a node agent in another process and for crictl.

Pods are connected by the plug-ins that the CNI directory configures, or with
--pod-cidr by the embedded network. Containers outlive this process; the next
one finds them again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Getuid() != 0 {
				return errNeedsRoot
			}
			for _, text := range cidrs {
				cidr, err := netip.ParsePrefix(text)
				if err != nil {
					return fmt.Errorf("--pod-cidr: %w", err)
				}
				c.PodCIDRs = append(c.PodCIDRs, cidr)
			}
			c.Version, c.Logger = version.Get().GitVersion, log.New(os.Stderr)
			return engine.Run(cmd.Context(), c)
		},
	}
	runtimeFlags(cmd.Flags(), &c)
	cmd.Flags().StringSliceVar(&cidrs, "pod-cidr", nil, "address ranges of this node's pods, one a family, for the embedded network; the CNI's plug-ins when empty")
	log.AddFlags(cmd.Flags())
	return cmd
}

func runtimeFlags(fs *pflag.FlagSet, c *engine.Config) {
	fs.StringVar(&c.Listen, "listen", c.Listen, "socket to serve on")
	fs.StringVar(&c.Root, "root", c.Root, "directory of images and containers")
	fs.StringVar(&c.State, "state", c.State, "directory of sockets and mounts, best on a tmpfs")
	fs.StringVar(&c.CNIConfDir, "cni-conf-dir", c.CNIConfDir, "directory of CNI configurations")
	fs.StringSliceVar(&c.CNIBinDirs, "cni-bin-dir", c.CNIBinDirs, "directories of CNI plug-ins")
	fs.StringVar(&c.CgroupDriver, "cgroup-driver", c.CgroupDriver, "cgroupfs or systemd, as the node agent has it")
	fs.StringVar(&c.CgroupRoot, "cgroup-root", c.CgroupRoot, "control group of pods that name none")
	fs.StringVar(&c.SeccompRoot, "seccomp-root", c.SeccompRoot, "directory of seccomp profiles")
	fs.StringSliceVar(&c.CDIDirs, "cdi-spec-dir", c.CDIDirs, "directories of the Container Device Interface's specifications")
	fs.StringVar(&c.StreamAddress, "stream-address", c.StreamAddress, "where exec, attach and port-forward are served")
	fs.StringVar(&c.HostsDir, "hosts-dir", c.HostsDir, "directory with a hosts.toml for each registry")
	fs.StringVar(&c.DockerConfig, "docker-config", c.DockerConfig, "docker's config.json with credentials for registries")
	fs.StringSliceVar(&c.Handlers, "runtime-handler", c.Handlers, "further names of runtime handlers")
}
