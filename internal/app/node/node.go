// SPDX-License-Identifier: Apache-2.0

// Package node runs one node of a cluster: the container runtime, the pod
// network and its ways to the other nodes, the node agent, the service proxy,
// the network policies, the name server, the Ingresses and the provisioner of
// volumes. Package cluster runs one beside the control plane, the verb agent runs
// one that joins a cluster elsewhere. What the parts may do at the API is decided
// by the clients they are given.
package node

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	configv1beta1 "k8s.io/kubelet/config/v1beta1"

	"kaji/internal/apiserver"
	"kaji/internal/app/addon"
	"kaji/internal/app/daemon"
	"kaji/internal/app/depot"
	"kaji/internal/app/engine"
	"kaji/internal/app/home"
	"kaji/internal/app/image"
	"kaji/internal/app/zpages"
	"kaji/internal/client"
	"kaji/internal/cni/mesh"
	"kaji/internal/container"
	"kaji/internal/cri"
	"kaji/internal/dns"
	"kaji/internal/kubelet"
	"kaji/internal/kubelet/cgroup"
	agentconfig "kaji/internal/kubelet/config"
	"kaji/internal/kubelet/evict"
	images "kaji/internal/kubelet/image"
	"kaji/internal/lifecycle"
	"kaji/internal/loadbalancer"
	"kaji/internal/pki"
	"kaji/internal/podnet"
	"kaji/internal/policy"
	"kaji/internal/provisioner"
	"kaji/internal/proxy"
	"kaji/internal/proxy/config"
)

// StateRoot is where sockets and mounts live: on a tmpfs, gone after a reboot.
const StateRoot = "/run/kaji"

// The components that stand at the API as themselves.
const (
	Kubelet = "kubelet"
	Proxy   = "kube-proxy"
	DNS     = "coredns"
	// IngressController serves Ingresses, Provisioner makes volumes.
	IngressController = "kaji-ingress"
	Provisioner       = "kaji-provisioner"
)

// Config says what the node is like.
type Config struct {
	// Name separates what this node keeps on the machine from others' things:
	// state, control groups.
	Name     string
	Dir      home.Dir
	NodeName string
	// NodeIPs are the node's addresses; those of the default routes when empty.
	NodeIPs []netip.Addr
	// PodCIDRs are the cluster's ranges of pods, one a family; DNS the
	// addresses of its name server; Domain its DNS domain.
	PodCIDRs []netip.Prefix
	DNS      []netip.Addr
	Domain   string
	// Plugins, unless nil, connect the pods instead of the embedded network; ways
	// to other nodes' pods are then theirs to make, too.
	Plugins *Plugins
	// CgroupDriver makes the control groups of pods: "cgroupfs", the default, or
	// "systemd".
	CgroupDriver string
	// KubeletPort is the node agent's port.
	KubeletPort int32
	// HealthzBindAddress is where the service proxy answers health checks;
	// empty is nowhere.
	HealthzBindAddress string
	// ProxyMetricsBindAddress is where the service proxy answers what kube-proxy
	// does at 127.0.0.1:10249; empty is nowhere.
	ProxyMetricsBindAddress string
	Ingress                 Ingress
	// Off are the cluster's add-ons that are left out; the node does not serve
	// them.
	Off []string
	// Client returns a component's client, not started.
	Client func(component string) (client.Interface, error)
	// Serving makes the certificate of the node agent's server.
	Serving       func(pki.Leaf) (tls.Certificate, error)
	Authenticator authenticator.Request
	Authorizer    authorizer.UnconditionalAuthorizer
	// Permitted is closed when the components have their rights at the API; nil
	// says that they have.
	Permitted <-chan struct{}
	Metrics   prometheus.Registerer
	Logger    *slog.Logger
}

// Node is what runs. Create it with New.
type Node struct {
	c       Config
	network podnet.Network
	gate    *gate
	runtime *container.Runtime
}

// RuntimeState is where the runtime of a node keeps sockets and mounts.
func RuntimeState(name string) string { return filepath.Join(StateRoot, name, "container") }

// New opens the runtime; nothing runs before Start.
func New(c Config) (*Node, error) {
	if c.KubeletPort == 0 {
		c.KubeletPort = 10250
	}
	if len(c.NodeIPs) == 0 {
		c.NodeIPs = outward()
	}
	if len(c.NodeIPs) == 0 {
		return nil, errors.New("this machine has no address besides loopback: set up a network first")
	}
	n := &Node{c: c}
	err := checkDriver(c.CgroupDriver)
	if err != nil {
		return nil, err
	}
	if n.network, err = n.podNetwork(); err != nil {
		return nil, err
	}
	n.gate = &gate{Network: n.network}
	n.runtime, err = container.New(container.Config{
		Root: c.Dir.Runtime(), State: RuntimeState(c.Name), Network: n.gate,
		CgroupDriver: c.CgroupDriver, CgroupRoot: cgroupRoot(c.Name), PinnedImages: []string{image.Name}, Version: Version(), Logger: c.Logger.With("component", "runtime"),
	})
	if err != nil {
		return nil, fmt.Errorf("container runtime: %w", err)
	}
	return n, nil
}

// outward returns the machine's addresses, those on the default route's link
// first.
func outward() []netip.Addr {
	var out []netip.Addr
	// Connecting a datagram socket sends nothing; it only asks the routes.
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		conn, err := net.Dial("udp", to)
		if err != nil {
			continue
		}
		if local, err := netip.ParseAddrPort(conn.LocalAddr().String()); err == nil {
			out = append(out, local.Addr().Unmap())
		}
		conn.Close()
	}
	return out
}

// Start adds the node's parts to a group.
func (n *Node) Start(group *lifecycle.Group) error {
	for _, part := range []struct {
		addon string // empty is no add-on
		start func(*lifecycle.Group) error
	}{{addon.Policy, n.policy}, {"", n.proxy}, {addon.DNS, n.dns}, {"", n.kubelet}, {addon.Ingress, n.ingress}, {addon.Storage, n.provisioner}} {
		if part.addon != "" && slices.Contains(n.c.Off, part.addon) {
			continue
		}
		if err := part.start(group); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) proxy(group *lifecycle.Group) error {
	c := n.c
	api, err := c.Client(Proxy)
	if err != nil {
		return err
	}
	log := c.Logger.With("component", "proxy")
	status := c.proxyStatus(log)
	p, err := proxy.New(proxy.Config{Client: api, NodeName: c.NodeName, PodCIDRs: c.PodCIDRs, IPv4: hasFamily(c.PodCIDRs, false), IPv6: hasFamily(c.PodCIDRs, true),
		LocalhostNodePorts: true, Tracking: proxy.DefaultTracking(), HealthzBindAddress: c.HealthzBindAddress, Metrics: status.registry, Logger: log})
	if err != nil {
		return err
	}
	if c.Plugins == nil {
		ways := mesh.New(mesh.Config{Client: api, NodeName: c.NodeName, Logger: c.Logger.With("component", "network")})
		group.Go("routes", ways.Run)
	}
	announcer := loadbalancer.New(loadbalancer.Config{Client: api, NodeName: c.NodeName, Logger: c.Logger.With("component", "loadbalancer")})
	group.Go("proxy", p.Run)
	group.Go("proxy status", status.Run)
	group.Go("load balancer", announcer.Run)
	return nil
}

// proxyStatus is what the service proxy shows, with metrics of its own.
type proxyStatus struct {
	proxy.Status
	registry *prometheus.Registry
}

func (c *Config) proxyStatus(log *slog.Logger) *proxyStatus {
	shown := config.Default()
	shown.Mode, shown.HostnameOverride = proxy.Mode, c.NodeName
	shown.HealthzBindAddress, shown.MetricsBindAddress = c.HealthzBindAddress, c.ProxyMetricsBindAddress
	var ranges []string
	for _, p := range c.PodCIDRs {
		ranges = append(ranges, p.String())
	}
	shown.ClusterCIDR = strings.Join(ranges, ",")
	s := &proxyStatus{registry: prometheus.NewRegistry()}
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.Status = proxy.Status{Configuration: shown, Metrics: s.registry, Logger: log}
	return s
}

// policy enforces network policies, as the proxy.
func (n *Node) policy(group *lifecycle.Group) error {
	c := n.c
	api, err := c.Client(Proxy)
	if err != nil {
		return err
	}
	e, err := policy.New(policy.Config{Client: api, NodeName: c.NodeName, IPv4: hasFamily(c.PodCIDRs, false), IPv6: hasFamily(c.PodCIDRs, true),
		Logger: c.Logger.With("component", "policy")})
	if err != nil {
		return err
	}
	n.gate.policies = e
	group.Go("policy", func(ctx context.Context) error {
		if c.permitted(ctx) {
			return e.Run(ctx)
		}
		return nil
	})
	return nil
}

// permitted waits until the components have their rights; false says that ctx
// ended before.
func (c *Config) permitted(ctx context.Context) bool {
	if c.Permitted == nil {
		return true
	}
	select {
	case <-c.Permitted:
		return true
	case <-ctx.Done():
		return false
	}
}

func hasFamily(cidrs []netip.Prefix, v6 bool) bool {
	for _, c := range cidrs {
		if c.Addr().Is6() == v6 {
			return true
		}
	}
	return false
}

const dnsPort = 53

// dns starts the node's name server, on the address of the Service kube-dns.
func (n *Node) dns(group *lifecycle.Group) error {
	c := n.c
	if err := takeAddresses(c.Name, c.DNS); err != nil {
		return fmt.Errorf("dns: %w", err)
	}
	api, err := c.Client(DNS)
	if err != nil {
		return err
	}
	var listen []netip.AddrPort
	for _, addr := range c.DNS {
		listen = append(listen, netip.AddrPortFrom(addr, dnsPort))
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s, err := dns.New(dns.Config{Client: api, Domain: c.Domain, Listen: listen, Metrics: registry, Gatherer: registry,
		ConfigMap: types.NamespacedName{Namespace: "kube-system", Name: "coredns"}, Logger: c.Logger.With("component", "dns")})
	if err != nil {
		return err
	}
	group.Go("dns", func(ctx context.Context) error {
		if !c.permitted(ctx) {
			return nil
		}
		api.Start(ctx)
		return s.Run(ctx)
	})
	return nil
}

// kubelet starts the runtime and the node agent over it.
func (n *Node) kubelet(group *lifecycle.Group) error {
	c := n.c
	api, err := c.Client(Kubelet)
	if err != nil {
		return err
	}
	listener, err := n.listen()
	if err != nil {
		return err
	}
	root, err := kubeletRoot(c.Dir, StockRoot, c.Logger.With("component", "kubelet"))
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	there := make(chan struct{})
	k, err := kubelet.New(kubelet.Config{
		NodeName: c.NodeName, Client: api, Runtime: n.runtime, Images: imported{n.runtime, there}, Network: n.network,
		RootDir: root, LogDir: c.Dir.PodLogs(), LegacyLogDir: "-",
		ClusterDNS: c.DNS, ClusterDomain: c.Domain, NodeIPs: c.NodeIPs, Port: c.KubeletPort,
		Cgroups:  &cgroup.Config{Root: cgroupRoot(c.Name), Systemd: c.CgroupDriver == CgroupSystemd, Quota: true},
		Listener: listener, Authenticator: c.Authenticator, Authorizer: c.Authorizer,
		ImageVerification: configv1beta1.NeverVerifyPreloadedImages,
		Eviction:          thresholds(), ImageGC: images.Policy{High: 95, Low: 90, MinAge: 2 * time.Minute}, Settings: n.settings(), Pages: zpages.Agent(nil),
		Logger: c.Logger.With("component", "kubelet"),
	})
	if err != nil {
		return errors.Join(fmt.Errorf("kubelet: %w", err), listener.Close())
	}
	group.Go("runtime", n.runtime.Run)
	group.Go("images", n.images)
	group.Go("image", func(ctx context.Context) error {
		defer close(there)
		return engine.Import(ctx, n.runtime)
	})
	group.Go("kubelet", k.Run)
	return nil
}

// thresholds are the node agent's, but for disks: this machine is its owner's too,
// and a large disk that is used well has still room for pods.
func thresholds() []evict.Threshold {
	out := evict.Defaults()
	for i := range out {
		if out[i].Signal == evict.NodeFsAvailable || out[i].Signal == evict.ImageFsAvailable {
			out[i].Percent = 0.05
		}
	}
	return out
}

// settings tell in the words of a configuration file how the node agent is set up.
func (n *Node) settings() *configv1beta1.KubeletConfiguration {
	s := agentconfig.Default()
	s.APIVersion, s.Kind = configv1beta1.SchemeGroupVersion.String(), "KubeletConfiguration"
	s.ClusterDomain, s.Port, s.CgroupRoot = n.c.Domain, n.c.KubeletPort, cgroupRoot(n.c.Name)
	for _, a := range n.c.DNS {
		s.ClusterDNS = append(s.ClusterDNS, a.String())
	}
	s.CgroupDriver = cmp.Or(n.c.CgroupDriver, s.CgroupDriver)
	s.PodLogsDir = n.c.Dir.PodLogs()
	s.EvictionHard = map[string]string{}
	for _, t := range thresholds() {
		s.EvictionHard[string(t.Signal)] = resource.NewQuantity(int64(t.Quantity), resource.BinarySI).String()
		if t.Percent > 0 {
			s.EvictionHard[string(t.Signal)] = strconv.FormatFloat(100*t.Percent, 'f', -1, 64) + "%"
		}
	}
	high, low := int32(95), int32(90)
	s.ImageGCHighThresholdPercent, s.ImageGCLowThresholdPercent = &high, &low
	return s
}

// provisioner makes volumes of the node's directories.
func (n *Node) provisioner(group *lifecycle.Group) error {
	c := n.c
	api, err := c.Client(Provisioner)
	if err != nil {
		return err
	}
	p, err := provisioner.New(provisioner.Config{Client: api, NodeName: c.NodeName, Root: c.Dir.Volumes(), Logger: c.Logger.With("component", "provisioner")})
	if err != nil {
		return err
	}
	group.Go("provisioner", func(ctx context.Context) error {
		if c.permitted(ctx) {
			return p.Run(ctx)
		}
		return nil
	})
	return nil
}

// listen listens for the node agent, with a certificate of the node.
func (n *Node) listen() (net.Listener, error) {
	c := n.c
	leaf := pki.Leaf{CommonName: "system:node:" + c.NodeName, Organizations: []string{"system:nodes"}, DNSNames: []string{c.NodeName, "localhost"}}
	for _, addr := range c.NodeIPs {
		leaf.IPs = append(leaf.IPs, addr.AsSlice())
	}
	serving := &serving{issue: func() (tls.Certificate, error) { return c.Serving(leaf) }}
	if _, err := serving.get(nil); err != nil {
		return nil, err
	}
	l, err := kubelet.Listen(context.Background(), net.JoinHostPort("", strconv.Itoa(int(c.KubeletPort))), c.Logger.With("component", "kubelet"))
	if err != nil {
		return nil, fmt.Errorf("kubelet: cannot listen on port %d: %w", c.KubeletPort, err)
	}
	return tls.NewListener(l, &tls.Config{
		GetCertificate: serving.get, MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}}), nil
}

// imported never asks a registry for images named localhost/…: such a name
// belongs to what was imported, as podman and buildah use it too. So a pod whose
// pull policy is Always, the default of untagged images, runs it. A pod of the first
// moments waits until the node's own image is there.
type imported struct {
	cri.Images
	there <-chan struct{}
}

// PullImage implements cri.Images.
func (i imported) PullImage(ctx context.Context, req *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	if !strings.HasPrefix(req.GetImage().GetImage(), "localhost/") {
		return i.Images.PullImage(ctx, req)
	}
	select {
	case <-i.there:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	status, err := i.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: req.Image})
	if err != nil {
		return nil, err
	}
	if status.Image == nil {
		return i.Images.PullImage(ctx, req)
	}
	return &runtimeapi.PullImageResponse{ImageRef: status.Image.Id}, nil
}

// images offers the runtime's images to the verb image, and keeps it from the
// directory itself.
func (n *Node) images(ctx context.Context) error {
	release, err := daemon.Hold(depot.Lock(n.c.Dir.Runtime()))
	if err != nil {
		return err
	}
	defer release()
	s, err := depot.Serve(depot.Socket(RuntimeState(n.c.Name)), n.runtime.Images())
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// Version is the container runtime's, as Node objects show it: this program's,
// without the v that other runtimes' lack too.
func Version() string { return strings.TrimPrefix(apiserver.Version().GitVersion, "v") }

// Name is what a node after the first keeps its things on the machine under.
func Name(cluster, node string) string { return cluster + "." + node }

// DefaultName returns the name of this machine's node: its host name in lower
// case.
func DefaultName() (string, error) {
	host, err := os.Hostname()
	return strings.ToLower(host), err
}
