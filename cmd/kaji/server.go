// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/component-base/version"

	"kaji/internal/app/addon"
	"kaji/internal/app/cluster"
	"kaji/internal/app/controlplane"
	"kaji/internal/app/daemon"
	"kaji/internal/app/heap"
	"kaji/internal/app/home"
	"kaji/internal/app/local"
	"kaji/internal/app/logging"
	"kaji/internal/app/node"
	"kaji/internal/controller/servicelb"
	"kaji/internal/lifecycle"
)

// clusterFlags are what server and up have in common.
type clusterFlags struct {
	name, nodeName, domain string
	podCIDRs, disable      []string
	podNetwork             string
	cgroupDriver           string
	plugins                node.Plugins
	nodes                  int
	nodeNetwork, network   string
	loadBalancer           bool
	loadBalancerPools      []string
	ingress                node.Ingress
	gatewayAPI             bool
	api                    *controlplane.Options
	log                    logging.Options
}

func newClusterFlags() *clusterFlags {
	return &clusterFlags{name: clusterName(), domain: "cluster.local", podCIDRs: []string{"10.244.0.0/16"}, nodes: 1, nodeNetwork: "100.127.0.0/24", loadBalancer: true, ingress: servedIngress(), gatewayAPI: true,
		podNetwork: embeddedNetwork, plugins: node.DefaultPlugins()}
}

// firstFlags are those of a cluster that people want first.
var firstFlags = []string{"name", "config", "nodes", "network", "data-dir", "node-name", "cluster-cidr", "pod-network", "service-cluster-ip-range", "cluster-domain", "secure-port",
	"load-balancer-pool", "ingress-http-port", "ingress-https-port", "disable", "feature-gates", "runtime-config", "etcd-servers", "encryption-provider-config", "audit-policy-file", "audit-log-path"}

// add defines the flags of a verb that starts a cluster, with those of its own
// shown first.
func (f *clusterFlags) add(cmd *cobra.Command, own ...string) {
	f.define(cmd.Flags())
	addConfigFile(cmd)
	shortHelp(cmd, append(slices.Clone(firstFlags), own...)...)
}

func (f *clusterFlags) define(fs *pflag.FlagSet) {
	fs.StringVar(&f.name, "name", f.name, "name of the cluster and of its context; the default is $KAJI_NAME, or kaji")
	fs.StringVar(&f.nodeName, "node-name", f.nodeName, "name of this machine's node; the host name when empty")
	fs.StringVar(&f.domain, "cluster-domain", f.domain, "DNS domain of the cluster")
	fs.StringSliceVar(&f.podCIDRs, "cluster-cidr", f.podCIDRs, "address ranges of pods, one of each family at most")
	fs.IntVar(&f.nodes, "nodes", f.nodes, "how many nodes to run on this machine; those after the first are network namespaces")
	fs.StringVar(&f.network, "network", f.network, "where the cluster lives: host, the network of this machine, or own, a network namespace with a range of its own, such as 100.126.7.0/24; when empty the machine's, or its own if another cluster lives there")
	fs.StringVar(&f.nodeNetwork, "node-network", f.nodeNetwork, "address range of the nodes where there is more than one")
	fs.StringVar(&f.podNetwork, "pod-network", f.podNetwork, "what connects pods: kaji, the embedded network, or cni, the plug-ins that the CNI directory configures")
	addPluginFlags(fs, &f.plugins)
	addCgroupFlag(fs, &f.cgroupDriver)
	addIngressFlags(fs, &f.ingress)
	fs.BoolVar(&f.loadBalancer, "load-balancer", f.loadBalancer, "give Services of type LoadBalancer their addresses; off leaves them to another load balancer")
	fs.StringSliceVar(&f.loadBalancerPools, "load-balancer-pool", nil, "addresses for Services of type LoadBalancer, of the nodes' link: ranges such as 192.0.2.10-192.0.2.20, or prefixes; the nodes' own addresses when empty")
	fs.StringSliceVar(&f.disable, "disable", nil, "add-ons to leave out: "+strings.Join(addon.Names(), ", ")+"; kaji addon list describes them")
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

// embeddedNetwork is the value of --pod-network for the network that comes with
// the program.
const embeddedNetwork = "kaji"

func addCgroupFlag(fs *pflag.FlagSet, to *string) {
	fs.StringVar(to, "cgroup-driver", node.Cgroupfs, "what makes the control groups of pods: cgroupfs, or systemd, as its slices and scopes")
}

func addPluginFlags(fs *pflag.FlagSet, to *node.Plugins) {
	fs.StringVar(&to.ConfDir, "cni-conf-dir", to.ConfDir, "directory of CNI configurations; the first by name counts")
	fs.StringSliceVar(&to.BinDirs, "cni-bin-dir", to.BinDirs, "directories of CNI plug-ins")
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
	c := cluster.Config{Name: f.name, Dir: dir, API: f.api, Domain: f.domain, NodeName: f.nodeName, KubeletPort: 10250, HealthzBindAddress: "127.0.0.1:10256", ProxyMetricsBindAddress: "127.0.0.1:10249"}
	switch f.podNetwork {
	case embeddedNetwork:
	case node.PodNetworkCNI:
		c.Plugins = &f.plugins
	default:
		return c, fmt.Errorf("--pod-network %q: want %s or %s", f.podNetwork, embeddedNetwork, node.PodNetworkCNI)
	}
	c.CgroupDriver = f.cgroupDriver
	c.Nodes, c.Ingress, c.GatewayAPI = f.nodes, f.ingress, f.gatewayAPI
	if a := f.ingress.Address; a != "" {
		if _, err := netip.ParseAddr(a); err != nil {
			return c, fmt.Errorf("--ingress-address: %w", err)
		}
	}
	if c.NodeNetwork, err = netip.ParsePrefix(f.nodeNetwork); err != nil {
		return c, fmt.Errorf("--node-network: %w", err)
	}
	own, isOwn, err := local.OwnNetwork(local.Cluster{Name: f.name, Dir: dir}, f.network)
	if err != nil {
		return c, fmt.Errorf("--network: %w", err)
	}
	if isOwn {
		c.Outside = own.Address()
		if !fs.Changed("node-network") {
			c.NodeNetwork = own.Nodes()
		}
	}
	for _, text := range f.podCIDRs {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return c, fmt.Errorf("--cluster-cidr: %w", err)
		}
		c.PodCIDRs = append(c.PodCIDRs, prefix.Masked())
	}
	if c.Off, err = addon.Check(f.disable, dir.Addons()); err != nil {
		return c, fmt.Errorf("--disable: %w", err)
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
			defer heap.Pace()()
			if os.Getuid() != 0 {
				return errors.New("running containers needs root: try again with sudo")
			}
			c, err := f.config(cmd.Flags())
			if err != nil {
				return err
			}
			if err := local.Enter(local.Cluster{Name: f.name, Dir: c.Dir}, f.network, given(cmd.Flags())); err != nil {
				return err
			}
			release, err := hold(f.name, c.Dir)
			if err != nil {
				return err
			}
			release = sync.OnceFunc(release)
			defer release()
			handedOver(c.Dir) // one that nobody took is stale
			c.Ingress.Leftover = lifecycle.NewLeftover()
			if err := c.Dir.Claim(version.Get().GitVersion); err != nil {
				return err
			}
			c.Logger = f.log.New(os.Stderr)
			cl, err := cluster.New(cmd.Context(), c)
			if err != nil {
				return err
			}
			err = cl.Run(cmd.Context())
			finish(c.Dir, c.Ingress.Leftover, release)
			return err
		},
	}
	f.add(cmd)
	return cmd
}

// How long answers by Ingresses and Gateways may go on after all else has ended:
// when the cluster or node stops, and when another process has taken over.
const (
	parting  = 3 * time.Second
	patience = 10 * time.Minute
)

// finish waits for what is still being answered.
func finish(dir home.Dir, answers *lifecycle.Leftover, release func()) {
	limit := parting
	if handedOver(dir) {
		release()
		signal.Reset(os.Interrupt, syscall.SIGTERM)
		limit = patience
	}
	ctx, stop := context.WithTimeout(context.Background(), limit)
	defer stop()
	answers.Wait(ctx)
}

// handedOver says whether another process is to take this one's place, and
// forgets it.
func handedOver(dir home.Dir) bool { return os.Remove(dir.Handover()) == nil }

// hold makes this process the only one of its cluster, and the cluster the only
// one in its network. A process that comes too late makes nothing.
func hold(name string, dir home.Dir) (release func(), err error) {
	holder := daemon.NetworkHolder()
	if holder != "" && holder != name {
		return nil, networkTaken(holder)
	}
	leave, err := daemon.Hold(dir.PID())
	if errors.Is(err, daemon.ErrRunning) {
		return nil, fmt.Errorf("the cluster %q is running already; `kaji status --name %s` shows it", name, name)
	}
	if err != nil {
		return nil, err
	}
	giveBack, err := daemon.HoldNetwork(name)
	if err != nil {
		leave()
		if errors.Is(err, daemon.ErrNetworkTaken) {
			err = networkTaken(daemon.NetworkHolder())
		}
		return nil, err
	}
	return func() { giveBack(); leave() }, nil
}

func networkTaken(holder string) error {
	return fmt.Errorf("the cluster %q uses this machine's network: stop it, or give this one its own with --network=own", holder)
}
