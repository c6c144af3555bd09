// SPDX-License-Identifier: Apache-2.0

// Package agent runs a node of a cluster whose control plane is elsewhere: the
// verb agent. It joins with a bootstrap token, for which the cluster signs a
// certificate of the node's own, or with a kubeconfig that it is given.
package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"kaji/internal/app/home"
	"kaji/internal/app/kubeconfig"
	"kaji/internal/app/node"
	"kaji/internal/client"
	"kaji/internal/client/remote"
	"kaji/internal/kubelet/server"
	"kaji/internal/lifecycle"
	"kaji/internal/pki"
)

// Config says which cluster to join, and as what.
type Config struct {
	// Name separates what this node keeps on the machine.
	Name     string
	Dir      home.Dir
	NodeName string
	NodeIPs  []netip.Addr
	// CgroupDriver makes the control groups of pods; "cgroupfs" when empty.
	CgroupDriver string
	// Kubeconfig has credentials of the node. Without it, they are asked for at
	// Server with Token, and kept.
	Kubeconfig string
	Server     string
	Token      string
	// CAHash is the hash of the authority's public key, "sha256:…", by which
	// the server is known.
	CAHash             string
	KubeletPort        int32
	HealthzBindAddress string
	// ProxyMetricsBindAddress is where the service proxy shows itself.
	ProxyMetricsBindAddress string
	// Plugins are where plug-ins are, should the cluster's pods be connected by
	// them.
	Plugins node.Plugins
	// Ingress says where Ingresses are served.
	Ingress node.Ingress
	Logger  *slog.Logger
}

// patience is how long what the cluster must say first is waited for, again
// and again.
const patience = 2 * time.Second

// Run runs the node until ctx ends. Containers go on running.
func Run(ctx context.Context, c Config) error {
	if c.NodeName == "" {
		var err error
		if c.NodeName, err = node.DefaultName(); err != nil {
			return err
		}
	}
	config, id, err := credentials(ctx, &c)
	if err != nil {
		return err
	}
	own := config
	if id != nil {
		if own, err = id.config(config); err != nil {
			return err
		}
	}
	api, err := remote.New(own)
	if err != nil {
		return err
	}
	settings, err := network(ctx, api, c.Logger)
	if err != nil || ctx.Err() != nil {
		return err
	}
	authority := x509.NewCertPool()
	authority.AppendCertsFromPEM(config.CAData)
	judge := &server.Delegate{Client: api, ClientCA: func() *x509.CertPool { return authority }, Anonymous: true}
	var plugins *node.Plugins
	if settings.plugins {
		plugins = &c.Plugins
	}
	n, err := node.New(node.Config{
		Plugins: plugins,
		Name:    c.Name, Dir: c.Dir, NodeName: c.NodeName, NodeIPs: c.NodeIPs,
		PodCIDRs: settings.pods, DNS: settings.dns, Domain: settings.domain,
		CgroupDriver: c.CgroupDriver, KubeletPort: c.KubeletPort, HealthzBindAddress: c.HealthzBindAddress, ProxyMetricsBindAddress: c.ProxyMetricsBindAddress, Ingress: c.Ingress, Off: settings.off,
		Client:        func(string) (client.Interface, error) { return api, nil },
		Serving:       func(leaf pki.Leaf) (tls.Certificate, error) { return selfSigned(c.Dir.PKI(), leaf) },
		Authenticator: judge, Authorizer: judge, Metrics: prometheus.NewRegistry(), Logger: c.Logger,
	})
	if err != nil {
		return err
	}
	group := lifecycle.New(ctx, c.Logger)
	if id != nil {
		group.Go("certificate", func(ctx context.Context) error { return id.run(ctx, api) })
	}
	if err := n.Start(group); err != nil {
		group.Stop()
		return errors.Join(err, group.Wait())
	}
	c.Logger.Info("node runs", "node", c.NodeName, "server", config.Host)
	return group.Wait()
}

// selfSigned makes the certificate of the node agent's server, by an authority
// of the node's own: the API server does not ask who signed it unless told to.
func selfSigned(dir string, leaf pki.Leaf) (tls.Certificate, error) {
	ca, err := pki.EnsureCA(dir, "kubelet-ca", leaf.CommonName)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := ca.Ensure(dir, "kubelet", leaf)
	if err != nil {
		return tls.Certificate{}, err
	}
	return pair.TLS()
}

// settings are what all nodes of a cluster share.
type settings struct {
	domain string
	pods   []netip.Prefix
	dns    []netip.Addr
	off    []string
	// plugins says that plug-ins connect pods.
	plugins bool
}

// network reads the settings, once the server tells them.
func network(ctx context.Context, api client.Interface, log *slog.Logger) (settings, error) {
	for {
		m, err := client.For[*corev1.ConfigMap](api).Get(ctx, "kube-system", "kaji-network")
		if err == nil {
			return parse(m.Data)
		}
		log.Warn("the cluster's settings cannot be read yet, this is tried again", "err", err)
		select {
		case <-ctx.Done():
			return settings{}, nil
		case <-time.After(patience):
		}
	}
}

func parse(data map[string]string) (settings, error) {
	s := settings{domain: data["domain"], plugins: data["podNetwork"] == node.PodNetworkCNI}
	if off := data["off"]; off != "" {
		s.off = strings.Split(off, ",")
	}
	for _, text := range strings.Split(data["podCIDRs"], ",") {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return s, fmt.Errorf("the ConfigMap kube-system/kaji-network: podCIDRs: %w", err)
		}
		s.pods = append(s.pods, p)
	}
	for _, text := range strings.Split(data["dns"], ",") {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return s, fmt.Errorf("the ConfigMap kube-system/kaji-network: dns: %w", err)
		}
		s.dns = append(s.dns, a)
	}
	return s, nil
}

// credentials returns how to reach the API server as the node, and the identity
// that is kept new; nil if it is somebody else's.
func credentials(ctx context.Context, c *Config) (*rest.Config, *identity, error) {
	kept := filepath.Join(string(c.Dir), "kubelet.kubeconfig")
	if c.Kubeconfig != "" && c.Kubeconfig != kept {
		config, err := load(c.Kubeconfig)
		return config, nil, err
	}
	if _, err := os.Stat(kept); errors.Is(err, os.ErrNotExist) {
		if err := join(ctx, c, kept); err != nil {
			return nil, nil, err
		}
	}
	config, id, err := identified(c, kept)
	if err == nil && id.ended() {
		c.Logger.Warn("the node's certificate has ended, the node joins anew", "ended", id.current.Load().Leaf.NotAfter)
		if err := join(ctx, c, kept); err != nil {
			return nil, nil, fmt.Errorf("the node's certificate has ended on %s: %w", id.current.Load().Leaf.NotAfter.Format(time.RFC3339), err)
		}
		config, id, err = identified(c, kept)
	}
	return config, id, err
}

// identified reads the identity that is kept in a file.
func identified(c *Config, kept string) (*rest.Config, *identity, error) {
	config, err := load(kept)
	if err != nil {
		return nil, nil, err
	}
	id, err := newIdentity(kept, config, c.NodeName, c.Logger)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", kept, err)
	}
	return config, id, nil
}

// load reads a kubeconfig and the authority it names.
func load(path string) (*rest.Config, error) {
	config, err := kubeconfig.REST(path)
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // fairness is the server's business
	if len(config.CAData) == 0 && config.CAFile != "" {
		if config.CAData, err = os.ReadFile(config.CAFile); err != nil {
			return nil, err
		}
	}
	return config, nil
}
