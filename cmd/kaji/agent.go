// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"kaji/internal/app/agent"
	"kaji/internal/app/daemon"
	"kaji/internal/app/heap"
	"kaji/internal/app/home"
	"kaji/internal/app/logging"
	"kaji/internal/app/node"
	"kaji/internal/lifecycle"
)

func agentCommand() *cobra.Command {
	c := agent.Config{Name: "agent", KubeletPort: 10250, HealthzBindAddress: "127.0.0.1:10256", ProxyMetricsBindAddress: "127.0.0.1:10249", Ingress: servedIngress(), Plugins: node.DefaultPlugins()}
	var dataDir, tokenFile string
	var nodeIPs []string
	var log logging.Options
	cmd := &cobra.Command{
		Use:     "agent",
		Short:   "Run a node of a cluster whose control plane is elsewhere, in the foreground",
		GroupID: "cluster",
		Long: `Run a node that joins a cluster: container runtime, pod network, node agent,
service proxy and name server.

On the server, ` + "`kaji token create`" + ` prints the command to run here. The node's own
certificate is kept in the data directory; the token is not needed again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			defer heap.Pace()()
			if os.Getuid() != 0 {
				return errNeedsRoot
			}
			var err error
			if dataDir == "" {
				dataDir = home.DefaultRoot + "/" + c.Name
			}
			c.Dir = home.Dir(dataDir)
			for _, text := range nodeIPs {
				ip, err := netip.ParseAddr(text)
				if err != nil {
					return fmt.Errorf("--node-ip: %w", err)
				}
				c.NodeIPs = append(c.NodeIPs, ip)
			}
			if tokenFile != "" {
				if c.Token, err = agent.ReadToken(tokenFile); err != nil {
					return fmt.Errorf("--token-file: %w", err)
				}
			}
			release, err := daemon.Hold(c.Dir.PID())
			if errors.Is(err, daemon.ErrRunning) {
				return fmt.Errorf("a node runs already with the data in %s", c.Dir)
			}
			if err != nil {
				return err
			}
			release = sync.OnceFunc(release)
			defer release()
			handedOver(c.Dir) // one that nobody took is stale
			c.Ingress.Leftover = lifecycle.NewLeftover()
			c.Logger = log.New(os.Stderr)
			err = agent.Run(cmd.Context(), c)
			finish(c.Dir, c.Ingress.Leftover, release)
			release()
			if err != nil {
				c.Dir.RemoveEmpty() // what never became a node leaves nothing
			}
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&c.Server, "server", "", "URL of the cluster's API server")
	fs.StringVar(&c.Token, "token", "", "token to join with")
	fs.StringVar(&tokenFile, "token-file", "", "file with the token to join with")
	fs.StringVar(&c.CAHash, "ca-cert-hash", "", "hash of the cluster's certificate authority, sha256:…, by which the server is known")
	fs.StringVar(&c.Kubeconfig, "kubeconfig", "", "file with the node's credentials, instead of joining with a token")
	fs.StringVar(&c.Name, "name", c.Name, "what this node keeps its things on the machine under")
	fs.StringVar(&dataDir, "data-dir", "", "directory of the node; "+home.DefaultRoot+"/<name> when empty")
	fs.StringVar(&c.NodeName, "node-name", "", "name of the node; the host name when empty")
	fs.StringSliceVar(&nodeIPs, "node-ip", nil, "addresses of the node, one a family; those of the default route when empty")
	fs.Int32Var(&c.KubeletPort, "port", c.KubeletPort, "port of the node agent's server")
	addCgroupFlag(fs, &c.CgroupDriver)
	addIngressFlags(fs, &c.Ingress)
	addPluginFlags(fs, &c.Plugins)
	fs.StringVar(&c.HealthzBindAddress, "healthz-bind-address", c.HealthzBindAddress, "where the service proxy answers health checks; empty is nowhere")
	fs.StringVar(&c.ProxyMetricsBindAddress, "proxy-metrics-bind-address", c.ProxyMetricsBindAddress, "where the service proxy serves metrics, as kube-proxy does; empty is nowhere")
	log.AddFlags(fs)
	return cmd
}
