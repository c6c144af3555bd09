// SPDX-License-Identifier: Apache-2.0

package component

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	configv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"

	"kaji/internal/client"
	"kaji/internal/client/remote"
	"kaji/internal/featuregate"
	"kaji/internal/lifecycle"
	"kaji/internal/proxy"
	"kaji/internal/proxy/config"
	"kaji/internal/proxy/flags"
)

// Proxy runs the service proxy alone until ctx ends.
func Proxy(ctx context.Context, o *flags.Options, log *slog.Logger) error {
	if o.Cleanup {
		return proxy.Cleanup()
	}
	c, err := proxySettings(o, log)
	if err != nil || o.InitOnly {
		return err
	}
	gates, err := featuregate.New(c.FeatureGates)
	if err != nil {
		return fmt.Errorf("failed complete: %w", err)
	}
	if o.WriteConfigTo != "" {
		text, err := yaml.Marshal(c)
		if err != nil {
			return err
		}
		return os.WriteFile(o.WriteConfigTo, text, 0o600)
	}
	access, err := restConfig(c.ClientConnection.Kubeconfig, o.Master, "kube-proxy")
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registerProcess(registry)
	registry.MustRegister(gates)
	access.Wrap(newRESTMetrics(registry).wrap)
	api, err := remote.New(access)
	if err != nil {
		return err
	}
	name := strings.ToLower(c.HostnameOverride)
	if name == "" {
		name = strings.ToLower(hostname())
	}
	settings, err := proxyConfig(ctx, c, api, name)
	if err != nil {
		return err
	}
	settings.Metrics, settings.Logger = registry, log
	p, err := proxy.New(settings)
	if err != nil {
		return err
	}
	log.Info("proxying services", "server", access.Host, "node", name)
	group := lifecycle.New(ctx, log)
	status := &proxy.Status{Configuration: c, Metrics: registry, Flags: o.Shown(), Logger: log}
	group.Go("metrics", status.Run)
	group.Go("proxy", p.Run)
	err = group.Wait()
	api.Wait()
	return err
}

// proxySettings reads the configuration: the file, or the flags.
func proxySettings(o *flags.Options, log *slog.Logger) (*configv1alpha1.KubeProxyConfiguration, error) {
	o.Complete()
	c := o.Configuration
	if o.ConfigFile != "" {
		data, err := os.ReadFile(o.ConfigFile)
		if err != nil {
			return nil, fmt.Errorf("failed complete: %w", err)
		}
		var lenient error
		if c, lenient, err = config.Load(data); err != nil {
			return nil, fmt.Errorf("failed complete: failed to load config file %s: %w", o.ConfigFile, err)
		}
		if lenient != nil {
			log.Warn("Using lenient decoding as strict decoding failed", "err", lenient)
		}
	}
	if o.HostnameOverride != "" {
		c.HostnameOverride = o.HostnameOverride
	}
	if errs := config.Validate(c); len(errs) > 0 {
		return nil, fmt.Errorf("failed validate: %w", errs.ToAggregate())
	}
	if f := c.Logging.Format; f != "text" && f != "json" {
		return nil, fmt.Errorf("initialize logging: %w", field.Invalid(field.NewPath("logging", "format"), f, "Unsupported log format"))
	}
	if c.Mode != "nftables" && c.Mode != "" {
		log.Warn("kaji's proxy works by nftables, whatever mode is asked for", "mode", c.Mode)
	}
	return c, nil
}

// proxyConfig is what the proxy is told.
func proxyConfig(ctx context.Context, c *configv1alpha1.KubeProxyConfiguration, api client.Interface, node string) (proxy.Config, error) {
	out := proxy.Config{Client: api, NodeName: node, HealthzBindAddress: c.HealthzBindAddress, BindHardFail: c.BindAddressHardFail,
		LocalhostNodePorts: *c.IPTables.LocalhostNodePorts && c.Mode != configv1alpha1.ProxyMode(proxy.Mode)}
	track := c.Conntrack
	out.Tracking = proxy.Tracking{MaxPerCore: int(*track.MaxPerCore), Min: int(*track.Min),
		TCPEstablished: track.TCPEstablishedTimeout.Duration, TCPCloseWait: track.TCPCloseWaitTimeout.Duration,
		UDP: track.UDPTimeout.Duration, UDPStream: track.UDPStreamTimeout.Duration, TCPBeLiberal: track.TCPBeLiberal}
	bind := c.BindAddress
	if addr, err := netip.ParseAddr(bind); err == nil && addr == netip.IPv4Unspecified() {
		bind = "" // the default routes say
	}
	ips, err := nodeIPs(bind)
	if err != nil { // no way to anywhere: loopback is left, as upstream has it
		ips = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	if out.NodePortAddresses, err = config.NodePortAddresses(c, ips); err != nil {
		return out, err
	}
	out.MasqueradeAll = config.MasqueradeAll(c)
	switch c.DetectLocalMode {
	case config.ModeNodeCIDR:
		out.PodCIDRs, err = nodeCIDRs(ctx, api, node)
	case config.ModeBridgeInterface:
		out.PodLinks = c.DetectLocal.BridgeInterface
	case config.ModeInterfaceNamePrefix:
		out.PodLinks = c.DetectLocal.InterfaceNamePrefix + "*"
	default:
		out.PodCIDRs, err = config.ClusterCIDRs(c)
	}
	out.IPv4, out.IPv6 = ips[0].Is4(), ips[0].Is6()
	for _, p := range out.PodCIDRs {
		out.IPv4, out.IPv6 = out.IPv4 || p.Addr().Is4(), out.IPv6 || p.Addr().Is6()
	}
	return out, err
}

// nodeCIDRs waits until the node has its pod ranges.
func nodeCIDRs(ctx context.Context, api client.Interface, name string) ([]netip.Prefix, error) {
	const look = time.Second
	for {
		node, err := client.For[*corev1.Node](api).Get(ctx, "", name)
		if err == nil && len(node.Spec.PodCIDRs) > 0 {
			var out []netip.Prefix
			for _, text := range node.Spec.PodCIDRs {
				p, err := netip.ParsePrefix(text)
				if err != nil {
					return nil, fmt.Errorf("node %s: %w", name, err)
				}
				out = append(out, p)
			}
			return out, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(look):
		}
	}
}
