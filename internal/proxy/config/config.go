// SPDX-License-Identifier: Apache-2.0

// Package config reads KubeProxyConfiguration v1alpha1: it fills absent fields
// as upstream does and refuses what is not valid, in upstream's words.
// Package app reads the file and turns the result into a proxy; package flags
// has the same settings as flags.
package config

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	configv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	"k8s.io/utils/ptr"
)

// The modes that have fields of their own.
const (
	modeNFTables = "nftables"
	modeIPVS     = "ipvs"
)

// How packets of the node's pods are told from others.
const (
	ModeClusterCIDR         configv1alpha1.LocalMode = "ClusterCIDR"
	ModeNodeCIDR            configv1alpha1.LocalMode = "NodeCIDR"
	ModeBridgeInterface     configv1alpha1.LocalMode = "BridgeInterface"
	ModeInterfaceNamePrefix configv1alpha1.LocalMode = "InterfaceNamePrefix"
)

// Default returns the configuration of a proxy that was given none.
func Default() *configv1alpha1.KubeProxyConfiguration {
	c := &configv1alpha1.KubeProxyConfiguration{}
	SetDefaults(c)
	return c
}

// Load reads a configuration file, YAML or JSON, and fills it up. As upstream
// does for the sake of older files, it ignores fields that do not exist and
// reports them by lenient.
func Load(data []byte) (c *configv1alpha1.KubeProxyConfiguration, lenient, err error) {
	scheme := runtime.NewScheme()
	utilruntime.Must(configv1alpha1.AddToScheme(scheme))
	obj, gvk, err := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer().Decode(data, nil, nil)
	if runtime.IsStrictDecodingError(err) {
		lenient = err
		obj, gvk, err = serializer.NewCodecFactory(scheme).UniversalDeserializer().Decode(data, nil, nil)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("failed to decode: %w", err)
	}
	c, ok := obj.(*configv1alpha1.KubeProxyConfiguration)
	if !ok {
		return nil, nil, fmt.Errorf("got unexpected config type: %v", gvk)
	}
	SetDefaults(c)
	SetModeDefaults(c)
	return c, lenient, nil
}

func fill[T any](field **T, v T) {
	if *field == nil {
		*field = ptr.To(v)
	}
}

func fillValue[T comparable](field *T, v T) {
	var zero T
	if *field == zero {
		*field = v
	}
}

// SetDefaults fills absent fields with upstream's defaults.
func SetDefaults(c *configv1alpha1.KubeProxyConfiguration) {
	fillValue(&c.BindAddress, "0.0.0.0")
	health, metrics := "0.0.0.0", "127.0.0.1"
	if addr, err := netip.ParseAddr(c.BindAddress); err == nil && addr.Is6() {
		health, metrics = "::", "::1"
	}
	c.HealthzBindAddress = withPort(c.HealthzBindAddress, health, "10256")
	c.MetricsBindAddress = withPort(c.MetricsBindAddress, metrics, "10249")
	fill(&c.OOMScoreAdj, -999)
	fillValue(&c.IPTables.SyncPeriod.Duration, 30*time.Second)
	fillValue(&c.IPTables.MinSyncPeriod.Duration, time.Second)
	fill(&c.IPTables.LocalhostNodePorts, true)
	fill(&c.IPTables.MasqueradeBit, 14)
	fillValue(&c.IPVS.SyncPeriod.Duration, 30*time.Second)
	fillValue(&c.NFTables.SyncPeriod.Duration, 30*time.Second)
	fillValue(&c.NFTables.MinSyncPeriod.Duration, time.Second)
	fill(&c.NFTables.MasqueradeBit, 14)
	fill(&c.Conntrack.MaxPerCore, 32*1024)
	fill(&c.Conntrack.Min, 128*1024)
	fill(&c.Conntrack.TCPEstablishedTimeout, metav1.Duration{Duration: 24 * time.Hour})
	fill(&c.Conntrack.TCPCloseWaitTimeout, metav1.Duration{Duration: time.Hour})
	fillValue(&c.ConfigSyncPeriod.Duration, 15*time.Minute)
	fillValue(&c.ClientConnection.ContentType, "application/vnd.kubernetes.protobuf")
	fillValue(&c.ClientConnection.QPS, 5)
	fillValue(&c.ClientConnection.Burst, 10)
	fillValue(&c.Logging.Format, "text")
	fillValue(&c.DetectLocalMode, ModeClusterCIDR)
	if c.FeatureGates == nil {
		c.FeatureGates = map[string]bool{}
	}
}

// SetModeDefaults fills what depends on the mode that is asked for by name: in
// mode nftables node ports answer at the node's own addresses only, as upstream's.
func SetModeDefaults(c *configv1alpha1.KubeProxyConfiguration) {
	if c.Mode == modeNFTables && len(c.NodePortAddresses) == 0 {
		c.NodePortAddresses = []string{primary}
	}
}

// withPort completes an address; a bare port and a bare address are both taken.
func withPort(address, host, port string) string {
	if address == "" {
		return net.JoinHostPort(host, port)
	}
	if addr, err := netip.ParseAddr(address); err == nil {
		return net.JoinHostPort(addr.String(), port)
	}
	return address
}

// ClusterCIDRs are the pods' ranges that a configuration names.
func ClusterCIDRs(c *configv1alpha1.KubeProxyConfiguration) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range strings.Split(c.ClusterCIDR, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// The keywords that stand for ranges of addresses: the node's own, those of
// loopback, and all.
const (
	primary   = "primary"
	localhost = "localhost"
	anywhere  = "all"
)

// NodePortAddresses are the ranges that node ports answer at; none is everywhere.
func NodePortAddresses(c *configv1alpha1.KubeProxyConfiguration, node []netip.Addr) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range c.NodePortAddresses {
		switch text {
		case primary:
			for _, addr := range node {
				out = append(out, netip.PrefixFrom(addr, addr.BitLen()))
			}
		case localhost:
			out = append(out, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
		case anywhere:
			return nil, nil
		default:
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, err
			}
			out = append(out, p.Masked())
		}
	}
	return out, nil
}

// MasqueradeAll says whether all packets to ClusterIPs get the node's address:
// each mode has a field of its own.
func MasqueradeAll(c *configv1alpha1.KubeProxyConfiguration) bool {
	if c.Mode == modeNFTables {
		return c.NFTables.MasqueradeAll
	}
	return c.IPTables.MasqueradeAll
}
