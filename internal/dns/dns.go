// SPDX-License-Identifier: Apache-2.0

// Package dns is the cluster's name server. Every node runs one, on the address
// of the kube-dns Service, so that a question never leaves the machine it is
// asked on: the cluster's names are answered from informers (package zone),
// everything else is forwarded to the servers the node itself uses, and kept for
// a while. Its settings are the Corefile of the coredns ConfigMap.
//
// Package app runs it and gives the node its address. It changes no objects.
package dns

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/dns/corefile"
	"kaji/internal/dns/forward"
	"kaji/internal/dns/zone"
)

// Config says how the server answers.
type Config struct {
	Client client.Interface
	// Domain is the cluster's domain, "cluster.local" when empty.
	Domain string
	// Listen are the addresses to answer at, by UDP and TCP.
	Listen []netip.AddrPort
	// Resolv is the file that names the servers to forward to,
	// "/etc/resolv.conf" when empty.
	Resolv string
	// ConfigMap holds the Corefile; its namespace empty is the settings of
	// corefile.Default for good.
	ConfigMap types.NamespacedName
	Metrics   prometheus.Registerer
	// Gatherer is served where the Corefile's plug-in prometheus says; nil is
	// nowhere.
	Gatherer prometheus.Gatherer
	Logger   *slog.Logger
}

// Server answers questions. Create it with New.
type Server struct {
	cfg       Config
	informers *zone.Informers
	maps      client.Typed[*corev1.ConfigMap]
	settings  atomic.Pointer[settings]
	metrics   *metrics
	status    *status
	log       *slog.Logger
}

// settings are what a Corefile says, ready to answer by.
type settings struct {
	text   string
	blocks []block
}

// block answers below one zone.
type block struct {
	corefile.Block
	cluster  *zone.Zone // nil without the kubernetes plug-in
	upstream *forward.Forwarder
}

// New returns a server; it answers once Run runs.
func New(cfg Config) (*Server, error) {
	if cfg.Domain == "" {
		cfg.Domain = "cluster.local"
	}
	if cfg.Resolv == "" {
		cfg.Resolv = "/etc/resolv.conf"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, informers: zone.NewInformers(cfg.Client), metrics: newMetrics(cfg.Metrics), log: cfg.Logger}
	s.status = newStatus(cfg.Listen, cfg.Gatherer, s.Ready, cfg.Logger)
	if err := s.configure(corefile.Default(cfg.Domain)); err != nil {
		return nil, err
	}
	if cfg.ConfigMap.Namespace != "" {
		s.maps = client.For[*corev1.ConfigMap](cfg.Client).With(client.InformerOptions{Namespace: cfg.ConfigMap.Namespace, FieldSelector: "metadata.name=" + cfg.ConfigMap.Name})
		s.maps.AddHandler(client.Handler[*corev1.ConfigMap]{Add: s.reload, Update: func(_, m *corev1.ConfigMap) { s.reload(m) }})
	}
	return s, nil
}

// reload follows the ConfigMap. Settings that cannot be read change nothing.
func (s *Server) reload(m *corev1.ConfigMap) {
	text, ok := m.Data["Corefile"]
	if !ok || text == s.settings.Load().text {
		return
	}
	if err := s.configure(text); err != nil {
		s.metrics.reloadFailed.Inc()
		s.log.Error("the Corefile cannot be used, the settings before it stay", "configmap", m.Namespace+"/"+m.Name, "err", err)
		return
	}
	s.log.Info("the Corefile was read", "configmap", m.Namespace+"/"+m.Name)
}

func (s *Server) configure(text string) error {
	parsed, err := corefile.Parse(text)
	if err != nil {
		return err
	}
	made := &settings{text: text}
	ports := map[string]uint16{}
	for _, b := range parsed {
		one := block{Block: b}
		maps.Copy(ports, b.Ports)
		if b.Kubernetes != nil {
			one.cluster = zone.New(s.informers, zone.Config{Domain: b.Kubernetes.Domain, TTL: b.Kubernetes.TTL, Pods: b.Kubernetes.Pods})
		}
		if b.Forward != nil {
			one.upstream, err = forward.New(forward.Config{To: b.Forward.To, Resolv: s.cfg.Resolv, Own: s.cfg.Listen,
				TTL: b.CacheTTL, NegativeTTL: b.CacheTTL, Logger: s.log})
			if err != nil {
				return err
			}
		}
		made.blocks = append(made.blocks, one)
	}
	s.settings.Store(made)
	s.status.want(ports)
	return nil
}

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	var servers []*dns.Server
	closeAll := func() {
		for _, one := range servers {
			if one.PacketConn != nil {
				one.PacketConn.Close()
			}
			if one.Listener != nil {
				one.Listener.Close()
			}
		}
	}
	for _, at := range s.cfg.Listen {
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			closeAll()
			return fmt.Errorf("dns: cannot listen at %s: %w", at, err)
		}
		servers = append(servers, &dns.Server{PacketConn: udp, Handler: s, UDPSize: maxDatagram})
		tcp, err := net.Listen("tcp", udp.LocalAddr().String())
		if err != nil {
			closeAll()
			return fmt.Errorf("dns: cannot listen at %s: %w", at, err)
		}
		servers = append(servers, &dns.Server{Listener: tcp, Handler: s, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, MaxTCPQueries: 1024})
	}
	return s.serve(ctx, servers, closeAll)
}

func (s *Server) serve(ctx context.Context, servers []*dns.Server, closeAll func()) error {
	var group sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group.Go(func() { s.status.run(ctx) })
	failed := make(chan error, len(servers))
	for _, one := range servers {
		group.Go(func() {
			if err := one.ActivateAndServe(); err != nil && ctx.Err() == nil {
				failed <- err
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	stop()
	closeAll()
	group.Wait()
	if err != nil {
		return fmt.Errorf("dns: %w", err)
	}
	return nil
}

// Ready says whether the cluster's names are known.
func (s *Server) Ready() bool { return s.informers.HasSynced() }
