// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/component-base/version"

	"kaji/internal/app/cluster"
	"kaji/internal/app/controlplane"
	"kaji/internal/app/daemon"
	"kaji/internal/app/home"
	"kaji/internal/app/logging"
	"kaji/internal/app/node"
	"kaji/internal/controller/servicelb"
)

// clusterFlags are what server and up have in common.
type clusterFlags struct {
	name, dataDir, nodeName, domain string
	podCIDRs                        []string
	nodes                           int
	nodeNetwork                     string
	loadBalancer                    bool
	loadBalancerPools               []string
	ingress                         node.Ingress
	gatewayAPI                      bool
	api                             *controlplane.Options
	log                             logging.Options
}

func newClusterFlags() *clusterFlags {
	return &clusterFlags{name: clusterName(), domain: "cluster.local", podCIDRs: []string{"10.244.0.0/16"}, nodes: 1, nodeNetwork: "100.127.0.0/24", loadBalancer: true, ingress: servedIngress(), gatewayAPI: true}
}

func (f *clusterFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.name, "name", f.name, "name of the cluster and of its context; the default is $KAJI_NAME, or kaji")
	fs.StringVar(&f.nodeName, "node-name", f.nodeName, "name of this machine's node; the host name when empty")
	fs.StringVar(&f.domain, "cluster-domain", f.domain, "DNS domain of the cluster")
	fs.StringSliceVar(&f.podCIDRs, "cluster-cidr", f.podCIDRs, "address ranges of pods, one of each family at most")
	fs.IntVar(&f.nodes, "nodes", f.nodes, "how many nodes to run on this machine; those after the first are network namespaces")
	fs.StringVar(&f.nodeNetwork, "node-network", f.nodeNetwork, "address range of the nodes where there is more than one")
	addIngressFlags(fs, &f.ingress)
	fs.BoolVar(&f.loadBalancer, "load-balancer", f.loadBalancer, "give Services of type LoadBalancer their addresses; off leaves them to another load balancer")
	fs.StringSliceVar(&f.loadBalancerPools, "load-balancer-pool", nil, "addresses for Services of type LoadBalancer, of the nodes' link: ranges such as 192.0.2.10-192.0.2.20, or prefixes; the nodes' own addresses when empty")
	fs.BoolVar(&f.gatewayAPI, "gateway-api", f.gatewayAPI, "define the kinds of the Gateway API, with the class kaji")
	f.api = controlplane.AddFlags(fs)
	fs.Lookup("kubelet-preferred-address-types").DefValue = "[InternalIP,ExternalIP,Hostname]"
	fs.Lookup("data-dir").Usage = "directory of the cluster; " + home.DefaultRoot + "/<name> when empty"
	f.log.AddFlags(fs)
}

// servedIngress is where a node serves Ingresses unless it is told otherwise.
func servedIngress() node.Ingress { return node.Ingress{HTTPPort: 80, HTTPSPort: 443} }

func addIngressFlags(fs *pflag.FlagSet, to *node.Ingress) {
	fs.StringVar(&to.Address, "ingress-address", "", "IP address that Ingresses are served at; all of the machine's when empty")
	fs.Uint16Var(&to.HTTPPort, "ingress-http-port", to.HTTPPort, "port that Ingresses are served at by HTTP; 0 is none")
	fs.Uint16Var(&to.HTTPSPort, "ingress-https-port", to.HTTPSPort, "port that Ingresses are served at by HTTPS; 0 is none")
}

func (f *clusterFlags) dir() (home.Dir, error) { return home.Named(f.name, f.api.DataDir) }

func (f *clusterFlags) config(fs *pflag.FlagSet) (cluster.Config, error) {
	dir, err := f.dir()
	if err != nil {
		return cluster.Config{}, err
	}
	f.api.DataDir, f.api.Serving.CertDir = string(dir), dir.PKI()
	if !fs.Changed("kubelet-preferred-address-types") {
		// A node's name need not resolve; its addresses are known.
		f.api.Kubelet.PreferredAddressTypes = []string{"InternalIP", "ExternalIP", "Hostname"}
	}
	if err := f.api.Complete(fs); err != nil {
		return cluster.Config{}, err
	}
	c := cluster.Config{Name: f.name, Dir: dir, API: f.api, Domain: f.domain, NodeName: f.nodeName, KubeletPort: 10250, HealthzBindAddress: "127.0.0.1:10256"}
	c.Nodes, c.Ingress, c.GatewayAPI = f.nodes, f.ingress, f.gatewayAPI
	if a := f.ingress.Address; a != "" {
		if _, err := netip.ParseAddr(a); err != nil {
			return c, fmt.Errorf("--ingress-address: %w", err)
		}
	}
	if c.NodeNetwork, err = netip.ParsePrefix(f.nodeNetwork); err != nil {
		return c, fmt.Errorf("--node-network: %w", err)
	}
	for _, text := range f.podCIDRs {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return c, fmt.Errorf("--cluster-cidr: %w", err)
		}
		c.PodCIDRs = append(c.PodCIDRs, prefix.Masked())
	}
	c.LoadBalancer = f.loadBalancer
	if c.LoadBalancerPools, err = servicelb.ParsePools(f.loadBalancerPools); err != nil {
		return c, fmt.Errorf("--load-balancer-pool: %w", err)
	}
	return c, nil
}

func serverCommand() *cobra.Command {
	f := newClusterFlags()
	cmd := &cobra.Command{
		Use:     "server",
		Short:   "Run a whole cluster in the foreground: control plane and one node",
		GroupID: "cluster",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Getuid() != 0 {
				return errors.New("running containers needs root: try again with sudo")
			}
			c, err := f.config(cmd.Flags())
			if err != nil {
				return err
			}
			release, err := daemon.Hold(c.Dir.PID())
			if errors.Is(err, daemon.ErrRunning) {
				return fmt.Errorf("the cluster %q is running already; `kaji status --name %s` shows it", f.name, f.name)
			}
			if err != nil {
				return err
			}
			defer release()
			if err := c.Dir.Claim(version.Get().GitVersion); err != nil {
				return err
			}
			c.Logger = f.log.New(os.Stderr)
			cl, err := cluster.New(cmd.Context(), c)
			if err != nil {
				return err
			}
			return cl.Run(cmd.Context())
		},
	}
	f.add(cmd.Flags())
	return cmd
}
