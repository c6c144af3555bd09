// SPDX-License-Identifier: Apache-2.0

// Package cluster runs a whole cluster in one process: the control plane, the
// scheduler, the controllers and one node (package node). The
// verbs server and up call it. Components meet at the API only; what is wired
// here are their clients, their order and their files.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kaji/internal/app/addon"
	"kaji/internal/app/controlplane"
	"kaji/internal/app/home"
	"kaji/internal/app/node"
	"kaji/internal/client"
	"kaji/internal/controller"
	"kaji/internal/controller/certificates"
	"kaji/internal/controller/servicelb"
	"kaji/internal/lifecycle"
	"kaji/internal/pki"
	"kaji/internal/scheduler"
	"kaji/internal/scheduler/config"
)

// Config says what the cluster is like.
type Config struct {
	// Name is the cluster's name, used for its context.
	Name string
	Dir  home.Dir
	// API are the API server's options; its data directory is Dir.
	API *controlplane.Options
	// PodCIDRs are the pods' ranges, one a family.
	PodCIDRs []netip.Prefix
	// Plugins, unless nil, connect pods instead of the embedded network.
	Plugins *node.Plugins
	// Domain is the cluster's DNS domain, "cluster.local".
	Domain string
	// NodeName is this machine's node; the host name when empty.
	NodeName string
	// Nodes is how many nodes run on this machine, at least one; those after the
	// first are network namespaces on NodeNetwork.
	Nodes       int
	NodeNetwork netip.Prefix
	// Outside is where this machine reaches a cluster with a network of its own;
	// zero says by the loopback address.
	Outside netip.Addr
	// NodeIPs are this node's addresses; those of the default routes when empty.
	NodeIPs []netip.Addr
	// CgroupDriver makes the control groups of pods; "cgroupfs" when empty.
	CgroupDriver string
	// KubeletPort is the node agent's port, 10250 when zero.
	KubeletPort int32
	// HealthzBindAddress is where the service proxy answers health checks;
	// empty is nowhere.
	HealthzBindAddress string
	// ProxyMetricsBindAddress is where the service proxy shows itself; empty is
	// nowhere.
	ProxyMetricsBindAddress string
	// Ingress says where Ingresses are served.
	Ingress node.Ingress
	// Off are the add-ons that are left out.
	Off []string
	// GatewayAPI has the kinds of the Gateway API defined.
	GatewayAPI bool
	// LoadBalancer gives Services of type LoadBalancer their addresses: of
	// LoadBalancerPools, or the nodes' own where there are none.
	LoadBalancer      bool
	LoadBalancerPools []servicelb.Pool
	Logger            *slog.Logger
}

// Cluster is a running cluster. Create it with New.
type Cluster struct {
	c       Config
	plane   *controlplane.Plane
	node    *node.Node
	metrics *prometheus.Registry
	// addonsTried is closed once the add-ons were applied, or could not be.
	addonsTried chan struct{}
}

// New opens the store and the runtime; nothing runs before Run.
func New(ctx context.Context, c Config) (*Cluster, error) {
	if c.NodeName == "" {
		var err error
		if c.NodeName, err = node.DefaultName(); err != nil {
			return nil, err
		}
	}
	if c.Domain == "" {
		c.Domain = "cluster.local"
	}
	if err := c.openNodeNetwork(); err != nil {
		return nil, err
	}
	cl := &Cluster{c: c, metrics: prometheus.NewRegistry(), addonsTried: make(chan struct{})}
	c.API.PublishAuthorities, c.API.ServeMetrics, c.API.Authentication.BootstrapToken = true, !slices.Contains(c.Off, addon.Metrics), true
	var err error
	if cl.plane, err = controlplane.New(ctx, c.API, c.Logger); err != nil {
		return nil, err
	}
	if cl.node, err = cl.newNode(); err != nil {
		return nil, errors.Join(err, cl.plane.Close())
	}
	if err := cl.plane.WriteAdminKubeconfig(c.Dir.AdminKubeconfig(), c.Name, c.Outside); err != nil {
		return nil, errors.Join(err, cl.plane.Close())
	}
	return cl, nil
}

// Run runs the cluster until ctx ends. Containers go on running; the next Run
// takes them over.
func (cl *Cluster) Run(ctx context.Context) error {
	group := lifecycle.New(ctx, cl.c.Logger)
	group.Go("control plane", cl.plane.Run)
	group.Go("components", func(ctx context.Context) error {
		select {
		case <-cl.plane.Ready():
		case <-ctx.Done():
			return nil
		}
		return cl.components(ctx)
	})
	return group.Wait()
}

// components runs what stands on the API.
func (cl *Cluster) components(ctx context.Context) error {
	group := lifecycle.New(ctx, cl.c.Logger)
	starts := []func(*lifecycle.Group) error{cl.addons, cl.controllers, cl.scheduler, cl.node.Start, cl.moreNodes}
	for _, start := range starts {
		if err := start(group); err != nil {
			return errors.Join(err, stop(group))
		}
	}
	group.Go("settle", settle)
	return group.Wait()
}

// settle gives the memory back that only the start needed. The runtime would do so
// after its next collections, of which an idle cluster has one in two minutes.
func settle(ctx context.Context) error {
	select {
	case <-time.After(15 * time.Second):
		debug.FreeOSMemory()
	case <-ctx.Done():
	}
	return nil
}

// stop ends what was started before a failure.
func stop(group *lifecycle.Group) error {
	group.Stop()
	return group.Wait()
}

func (cl *Cluster) scheduler(group *lifecycle.Group) error {
	cl.alone(group, "scheduler", "kube-scheduler", func(ctx context.Context) error {
		client, err := cl.plane.Client("system:kube-scheduler", nil, "kube-scheduler")
		if err != nil {
			return err
		}
		configuration := config.Default()
		configuration.LeaderElection.LeaderElect = new(bool) // alone is this cluster's business
		s, err := scheduler.New(scheduler.Config{Client: client, Configuration: configuration, Logger: cl.c.Logger.With("component", "scheduler"), Hostname: cl.c.NodeName, PodGroups: cl.plane.PodGroups()})
		if err != nil {
			return fmt.Errorf("scheduler: %w", err)
		}
		return s.Run(ctx)
	})
	return nil
}

func (cl *Cluster) controllers(group *lifecycle.Group) error {
	cl.alone(group, "controllers", "kube-controller-manager", func(ctx context.Context) error {
		m, err := cl.manager()
		if err != nil {
			return fmt.Errorf("controllers: %w", err)
		}
		return m.Run(ctx)
	})
	return nil
}

// manager makes the controllers, with clients of their own: those of a term as
// leader end with it.
func (cl *Cluster) manager() (*controller.Manager, error) {
	shared, err := cl.plane.Client("system:kube-controller-manager", nil, "kube-controller-manager")
	if err != nil {
		return nil, err
	}
	controllers := []string{"*", "bootstrap-signer-controller", "token-cleaner-controller"} // nodes join by tokens
	if cl.plane.PodGroups() {
		controllers = append(controllers, "podgroup-protection-controller")
	}
	var balancer *servicelb.Config
	if cl.c.LoadBalancer {
		balancer = &servicelb.Config{Pools: cl.c.LoadBalancerPools, Reserved: cl.ownPorts(),
			Ingress: []int32{int32(cl.c.Ingress.HTTPPort), int32(cl.c.Ingress.HTTPSPort)}}
	}
	return controller.New(controller.Config{
		LoadBalancer: balancer,
		Client: func(account string) (client.Interface, error) {
			if account == "" {
				return shared, nil
			}
			own, err := cl.plane.Client("system:serviceaccount:kube-system:"+account, []string{"system:serviceaccounts", "system:serviceaccounts:kube-system"}, "kube-controller-manager")
			return client.WithInformers(own, shared), err
		},
		Controllers:  controllers,
		ClusterCIDRs: cl.c.PodCIDRs, RootCA: cl.plane.Keys.CA.Cert, Signers: signers(cl.plane.Keys.CA), TokenKey: cl.plane.Keys.Signing, Logger: cl.c.Logger.With("component", "controller"),
	})
}

// signers lets the cluster's authority sign for all of its signers.
func signers(ca *pki.CA) map[string]*pki.CA {
	out := map[string]*pki.CA{}
	for _, name := range certificates.Signers() {
		out[name] = ca
	}
	return out
}

// ownPorts are TCP ports of the nodes' addresses that no Service may take over:
// the way in for their owner, the node agent's and the API server's.
func (cl *Cluster) ownPorts() []int32 {
	ports := []int32{22, 10250, int32(cl.c.API.Serving.SecurePort)}
	if cl.c.KubeletPort != 0 {
		ports = append(ports, cl.c.KubeletPort)
	}
	return ports
}
