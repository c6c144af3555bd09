// SPDX-License-Identifier: Apache-2.0

// Package plugin connects pods with the plug-ins of the Container Network
// Interface that an administrator, or a network's own installer, has set up. A
// container runtime calls it through podnet. The first configuration by name in
// the directory counts, as with other runtimes; it is read anew for every pod,
// so that a change needs no restart.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"kaji/internal/podnet"
)

// podInterface is the name of a pod's interface.
const podInterface = "eth0"

// Config says where plug-ins and their configuration are.
type Config struct {
	// ConfDir is usually /etc/cni/net.d.
	ConfDir string
	// BinDirs are searched for plug-ins, usually /opt/cni/bin.
	BinDirs []string
	// CacheDir remembers how each pod was connected, so that it is disconnected
	// in the same way after the configuration has changed.
	CacheDir string
}

// Network connects sandboxes by plug-ins. It is safe for concurrent use.
type Network struct {
	c   Config
	cni *libcni.CNIConfig
}

var (
	_ podnet.Network   = (*Network)(nil)
	_ podnet.Collector = (*Network)(nil)
)

// New returns a network that is ready once a configuration is there.
func New(c Config) *Network {
	return &Network{c, libcni.NewCNIConfigWithCacheDir(c.BinDirs, c.CacheDir, nil)}
}

// configuration reads the first usable file of the directory.
func (n *Network) configuration() (*libcni.NetworkConfigList, error) {
	files, err := libcni.ConfFiles(n.c.ConfDir, []string{".conf", ".conflist", ".json"})
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var errs []error
	for _, file := range files {
		list, err := read(file)
		if err == nil && len(list.Plugins) > 0 {
			return list, nil
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("cni config load failed: %w", err)
	}
	return nil, fmt.Errorf("cni plugin not initialized: no network config found in %s", n.c.ConfDir)
}

func read(file string) (*libcni.NetworkConfigList, error) {
	if strings.HasSuffix(file, ".conflist") {
		return libcni.ConfListFromFile(file)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	conf, err := libcni.NetworkPluginConfFromBytes(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return libcni.ConfListFromConf(conf)
}

// Ready implements podnet.Network. Plug-ins of CNI 1.1 are asked themselves.
func (n *Network) Ready(ctx context.Context) error {
	list, err := n.configuration()
	if err != nil {
		return err
	}
	return n.cni.GetStatusNetworkList(ctx, list)
}

// SetPodCIDRs implements podnet.Network. The plug-ins manage addresses.
func (n *Network) SetPodCIDRs(context.Context, []netip.Prefix) error { return nil }

// Setup implements podnet.Network.
func (n *Network) Setup(ctx context.Context, s podnet.Sandbox) (*podnet.Result, error) {
	list, err := n.configuration()
	if err != nil {
		return nil, err
	}
	if err := loopback(s.Netns); err != nil {
		return nil, fmt.Errorf("loopback of the pod: %w", err)
	}
	got, err := n.cni.AddNetworkList(ctx, list, attachment(s))
	if err != nil {
		return nil, err
	}
	result, err := current.GetResult(got)
	if err != nil {
		return nil, err
	}
	out := addresses(result)
	if len(out.IPs) == 0 {
		return nil, fmt.Errorf("the network %q gave the pod no address", list.Name)
	}
	return out, nil
}

// loopback brings up the pod's own, which the protocol leaves to the runtime.
func loopback(path string) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	pod, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer pod.Close()
	lo, err := pod.LinkByName("lo")
	if err != nil {
		return err
	}
	return pod.LinkSetUp(lo)
}

// addresses are those of the pod's own interface.
func addresses(result *current.Result) *podnet.Result {
	out := &podnet.Result{Interface: podInterface}
	for _, ip := range result.IPs {
		if ip.Interface != nil && !isPods(result, *ip.Interface) {
			continue
		}
		if addr, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			out.IPs = append(out.IPs, addr.Unmap())
		}
	}
	return out
}

// isPods says whether an interface of a result is inside the pod.
func isPods(result *current.Result, i int) bool {
	return i >= 0 && i < len(result.Interfaces) && result.Interfaces[i].Name == podInterface && result.Interfaces[i].Sandbox != ""
}

// attachment describes a sandbox to the plug-ins.
func attachment(s podnet.Sandbox) *libcni.RuntimeConf {
	capabilities := map[string]any{"io.kubernetes.cri.pod-annotations": s.Annotations}
	if len(s.Ports) > 0 {
		var ports []map[string]any
		for _, p := range s.Ports {
			ports = append(ports, map[string]any{
				"hostPort": p.HostPort, "containerPort": p.ContainerPort, "protocol": strings.ToLower(p.Protocol), "hostIP": p.HostIP})
		}
		capabilities["portMappings"] = ports
	}
	if s.IngressBandwidth > 0 || s.EgressBandwidth > 0 {
		limits := map[string]any{}
		for kind, rate := range map[string]int64{"ingress": s.IngressBandwidth, "egress": s.EgressBandwidth} {
			if rate > 0 {
				limits[kind+"Rate"], limits[kind+"Burst"] = rate, int64(1<<31-1)
			}
		}
		capabilities["bandwidth"] = limits
	}
	netns := s.Netns
	if _, err := os.Stat(netns); err != nil {
		netns = "" // says to the plug-ins that it is gone
	}
	return &libcni.RuntimeConf{
		ContainerID: s.ID, NetNS: netns, IfName: podInterface, CapabilityArgs: capabilities,
		Args: [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", s.Namespace}, {"K8S_POD_NAME", s.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", s.ID}, {"K8S_POD_UID", s.UID},
		},
	}
}

// Teardown implements podnet.Network.
func (n *Network) Teardown(ctx context.Context, s podnet.Sandbox) error {
	attached, err := n.cni.GetCachedAttachments(s.ID)
	if err != nil {
		return err
	}
	rt := attachment(s)
	for _, a := range attached {
		list, err := libcni.ConfListFromBytes(a.Config)
		if err != nil {
			return err
		}
		if err := n.cni.DelNetworkList(ctx, list, rt); err != nil {
			return err
		}
	}
	if len(attached) > 0 {
		return nil
	}
	// Setup may have ended half-way, before it was remembered.
	list, err := n.configuration()
	if err != nil {
		return nil // nothing to disconnect with, and nothing was connected
	}
	return n.cni.DelNetworkList(ctx, list, rt)
}

// Check implements podnet.Network.
func (n *Network) Check(ctx context.Context, s podnet.Sandbox) (*podnet.Result, error) {
	attached, err := n.cni.GetCachedAttachments(s.ID)
	if err != nil {
		return nil, err
	}
	for _, a := range attached {
		list, err := libcni.ConfListFromBytes(a.Config)
		if err != nil {
			return nil, err
		}
		if err := n.cni.CheckNetworkList(ctx, list, attachment(s)); err != nil {
			return nil, err
		}
		got, err := n.cni.GetNetworkListCachedResult(list, attachment(s))
		if err != nil {
			return nil, err
		}
		result, err := current.GetResult(got)
		if err != nil {
			return nil, err
		}
		return addresses(result), nil
	}
	return nil, fmt.Errorf("pod %s/%s has no address: its interface is gone", s.Namespace, s.Name)
}

// Collect implements podnet.Collector: pods that nobody knows any more leave as they
// came, and plug-ins of CNI 1.1 hear which ones are left.
func (n *Network) Collect(ctx context.Context, sandboxes []podnet.Sandbox) error {
	list, err := n.configuration()
	if err != nil {
		return nil // no network yet: nothing that could be collected
	}
	args := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}
	for _, s := range sandboxes {
		args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: s.ID, IfName: podInterface})
	}
	return n.cni.GCNetworkList(ctx, list, args)
}
