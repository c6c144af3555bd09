// SPDX-License-Identifier: Apache-2.0

// Package member runs one member of an etcd cluster inside the process, for
// several kaji servers that share their state. Package app starts it beside the
// API server, which reaches it through package etcd like any other etcd.
package member

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sort"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
)

// Config describes a member. Name and Dir are required.
type Config struct {
	// Name is the member's, unique in the cluster.
	Name string
	// Dir is its data directory.
	Dir string
	// ClientURLs and PeerURLs are where it listens; the Advertised ones, by
	// default the same, are what others are told.
	ClientURLs, PeerURLs                     []string
	AdvertisedClientURLs, AdvertisedPeerURLs []string
	// Cluster names the peer URLs of all first members, this one included;
	// nil means a cluster of this member alone.
	Cluster map[string][]string
	// Join says that the cluster exists and knows of this member already.
	Join bool
	// Client and Peer are the certificates for the two kinds of connections;
	// without, https URLs are refused.
	Client, Peer TLS
	// QuotaBytes bounds the database; zero means 8 GiB.
	QuotaBytes int64
}

// TLS names PEM files; a CAFile demands that the other side shows a certificate
// of that authority.
type TLS struct {
	CertFile, KeyFile, CAFile string
}

func (t TLS) info() transport.TLSInfo {
	return transport.TLSInfo{
		CertFile: t.CertFile, KeyFile: t.KeyFile, TrustedCAFile: t.CAFile, ClientCertAuth: t.CAFile != "",
	}
}

// Member is one member of a cluster.
type Member struct {
	cfg   Config
	ready chan struct{}
	// endpoints is set before ready is closed.
	endpoints []string
}

// New returns a member that Run starts.
func New(cfg Config) *Member { return &Member{cfg: cfg, ready: make(chan struct{})} }

// Ready is closed once the member serves clients: with others to join, not
// before most of them are up.
func (m *Member) Ready() <-chan struct{} { return m.ready }

// Endpoints returns the addresses at which it serves clients; call it when ready.
func (m *Member) Endpoints() []string { return m.endpoints }

// Run takes part in the cluster until ctx ends or the member fails.
func (m *Member) Run(ctx context.Context) error {
	cfg, err := m.cfg.embed()
	if err != nil {
		return fmt.Errorf("etcd member %s: %w", m.cfg.Name, err)
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("etcd member %s: %w", m.cfg.Name, err)
	}
	defer e.Close()
	select {
	case <-e.Server.ReadyNotify():
		for i, l := range e.Clients {
			m.endpoints = append(m.endpoints, cfg.ListenClientUrls[i].Scheme+"://"+l.Addr().String())
		}
		close(m.ready)
	case err := <-e.Err():
		return m.stopped(err)
	case <-ctx.Done():
		return nil
	}
	select {
	case err := <-e.Err():
		return m.stopped(err)
	case <-e.Server.StopNotify():
		return m.stopped(errors.New("it was removed from the cluster"))
	case <-ctx.Done():
		return nil
	}
}

func (m *Member) stopped(err error) error {
	return fmt.Errorf("etcd member %s stopped: %w", m.cfg.Name, err)
}

// embed translates the configuration to etcd's.
func (c *Config) embed() (*embed.Config, error) {
	out := embed.NewConfig()
	out.Name, out.Dir = c.Name, c.Dir
	out.LogLevel = "warn"
	out.ClientTLSInfo, out.PeerTLSInfo = c.Client.info(), c.Peer.info()
	if out.QuotaBackendBytes = c.QuotaBytes; c.QuotaBytes == 0 {
		out.QuotaBackendBytes = 8 << 30
	}
	for _, field := range []struct {
		to   *[]url.URL
		from []string
		or   []string
	}{
		{&out.ListenClientUrls, c.ClientURLs, nil},
		{&out.ListenPeerUrls, c.PeerURLs, nil},
		{&out.AdvertiseClientUrls, c.AdvertisedClientURLs, c.ClientURLs},
		{&out.AdvertisePeerUrls, c.AdvertisedPeerURLs, c.PeerURLs},
	} {
		from := field.from
		if len(from) == 0 {
			from = field.or
		}
		if len(from) == 0 {
			continue // etcd's default: its usual ports on localhost
		}
		urls, err := parse(from)
		if err != nil {
			return nil, err
		}
		*field.to = urls
	}
	if c.Join {
		out.ClusterState = embed.ClusterStateFlagExisting
	}
	out.InitialCluster = out.InitialClusterFromName(c.Name)
	if c.Cluster != nil {
		out.InitialCluster = members(c.Cluster)
	}
	return out, nil
}

func parse(addresses []string) ([]url.URL, error) {
	var out []url.URL
	for _, address := range addresses {
		u, err := url.Parse(address)
		if err != nil {
			return nil, err
		}
		out = append(out, *u)
	}
	return out, nil
}

// members renders name=url pairs, in order, so that every member says the same.
func members(cluster map[string][]string) string {
	var pairs []string
	for name, urls := range cluster {
		for _, u := range urls {
			pairs = append(pairs, name+"="+u)
		}
	}
	sort.Strings(pairs)
	return strings.Join(pairs, ",")
}
