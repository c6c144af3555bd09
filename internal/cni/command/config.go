// SPDX-License-Identifier: Apache-2.0

package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"kaji/internal/podnet"
)

// config is the plug-in's part of a network's configuration.
type config struct {
	types.PluginConf
	// PodCIDRs are the ranges of this node's pods, one a family.
	PodCIDRs []netip.Prefix `json:"podCIDRs"`
	// ClusterCIDRs are the ranges that see pods by their own addresses, usually
	// those of all nodes' pods.
	ClusterCIDRs []netip.Prefix `json:"clusterCIDRs"`
	// MTU of pods' interfaces; zero takes that of the default route's link.
	MTU int `json:"mtu"`
	// StateDir keeps the lock and what speeds up later calls; it may be lost.
	StateDir string `json:"stateDir"`
	// RuntimeConfig has what the runtime says by the capabilities portMappings,
	// bandwidth and ipRanges.
	RuntimeConfig struct {
		PortMappings []podPort `json:"portMappings"`
		Bandwidth    struct {
			IngressRate, EgressRate int64
		} `json:"bandwidth"`
		IPRanges [][]struct{ Subnet netip.Prefix } `json:"ipRanges"`
	} `json:"runtimeConfig"`
}

type podPort struct {
	HostPort, ContainerPort int32
	Protocol, HostIP        string
}

// defaultState is on a tmpfs, as what the kernel keeps ends with a reboot.
const defaultState = "/run/kaji/cni"

// biggestMTU is that of IP packets.
const biggestMTU = 65535

// parse reads a configuration and says what is wrong with it.
func parse(data []byte) (*config, error) {
	c := &config{StateDir: defaultState}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "the configuration cannot be read", err.Error())
	}
	if len(c.PodCIDRs) == 0 {
		for _, set := range c.RuntimeConfig.IPRanges {
			for _, r := range set[:min(len(set), 1)] {
				c.PodCIDRs = append(c.PodCIDRs, r.Subnet)
			}
		}
	}
	if err := c.validate(); err != nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "the configuration is wrong", err.Error())
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "prevResult cannot be read", err.Error())
	}
	return c, nil
}

func (c *config) validate() error {
	if len(c.PodCIDRs) == 0 {
		return errors.New("podCIDRs: the ranges of this node's pods are needed, such as [\"10.244.1.0/24\"]")
	}
	families := map[bool]bool{}
	for _, p := range c.PodCIDRs {
		if !p.IsValid() || families[p.Addr().Is6()] {
			return fmt.Errorf("podCIDRs %v: want one range a family", c.PodCIDRs)
		}
		families[p.Addr().Is6()] = true
	}
	for _, p := range c.ClusterCIDRs {
		if !p.IsValid() {
			return fmt.Errorf("clusterCIDRs %v: want ranges", c.ClusterCIDRs)
		}
	}
	if c.MTU < 0 || c.MTU > biggestMTU {
		return fmt.Errorf("mtu %d: want 0 to %d", c.MTU, biggestMTU)
	}
	if !filepath.IsAbs(c.StateDir) {
		return fmt.Errorf("stateDir %q: want an absolute path", c.StateDir)
	}
	return nil
}

// sandbox is the pod that a call is for.
func (c *config) sandbox(args *skel.CmdArgs) (podnet.Sandbox, error) {
	var pod struct {
		types.CommonArgs
		K8S_POD_NAMESPACE, K8S_POD_NAME, K8S_POD_UID types.UnmarshallableString
	}
	pod.IgnoreUnknown = true
	if err := types.LoadArgs(args.Args, &pod); err != nil {
		return podnet.Sandbox{}, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS", err.Error())
	}
	s := podnet.Sandbox{ID: args.ContainerID, Netns: args.Netns, Interface: args.IfName,
		Namespace: string(pod.K8S_POD_NAMESPACE), Name: string(pod.K8S_POD_NAME), UID: string(pod.K8S_POD_UID),
		IngressBandwidth: c.RuntimeConfig.Bandwidth.IngressRate, EgressBandwidth: c.RuntimeConfig.Bandwidth.EgressRate}
	for _, p := range c.RuntimeConfig.PortMappings {
		s.Ports = append(s.Ports, podnet.PortMapping{HostPort: p.HostPort, ContainerPort: p.ContainerPort, Protocol: strings.ToUpper(p.Protocol), HostIP: p.HostIP})
	}
	return s, nil
}
