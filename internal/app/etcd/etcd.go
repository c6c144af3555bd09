// SPDX-License-Identifier: Apache-2.0

// Package etcd runs the embedded store behind etcd's API, for kube-apiserver,
// etcdctl and whatever else expects an etcd. The verb kaji etcd calls it, also
// under the name etcd. Flags are etcd's; those of clusters of several members
// are accepted and change nothing.
package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"kaji/internal/lifecycle"
	"kaji/internal/store/etcdserver"
	"kaji/internal/store/pebble"
)

// Options are the flags.
type Options struct {
	Name, DataDir                   string
	ListenClientURLs                []string
	AdvertiseClientURLs             []string
	AdvertisePeerURLs               []string
	CertFile, KeyFile, TrustedCA    string
	ClientCertAuth                  bool
	MaxTxnOps, MaxRequestBytes      int
	ProgressInterval, HistoryLength time.Duration
}

// AddFlags defines the flags and returns where their values go.
func AddFlags(fs *pflag.FlagSet) *Options {
	o := &Options{}
	fs.StringVar(&o.Name, "name", "default", "name of this member")
	fs.StringVar(&o.DataDir, "data-dir", "", "directory of the store; <name>.etcd when empty")
	fs.StringSliceVar(&o.ListenClientURLs, "listen-client-urls", []string{"http://localhost:2379"}, "URLs to listen on for clients")
	fs.StringSliceVar(&o.AdvertiseClientURLs, "advertise-client-urls", nil, "client URLs shown in the member list; those listened on when empty")
	fs.StringSliceVar(&o.AdvertisePeerURLs, "initial-advertise-peer-urls", []string{"http://localhost:2380"}, "peer URLs shown in the member list; there are no peers")
	fs.StringVar(&o.CertFile, "cert-file", "", "file with the serving certificate")
	fs.StringVar(&o.KeyFile, "key-file", "", "file with the key of --cert-file")
	fs.StringVar(&o.TrustedCA, "trusted-ca-file", "", "file with the authorities of client certificates")
	fs.BoolVar(&o.ClientCertAuth, "client-cert-auth", false, "let only clients with a certificate of --trusted-ca-file in")
	fs.IntVar(&o.MaxTxnOps, "max-txn-ops", 128, "most operations in a transaction")
	fs.IntVar(&o.MaxRequestBytes, "max-request-bytes", 3<<19, "most bytes of a request")
	fs.DurationVar(&o.ProgressInterval, "watch-progress-notify-interval", 10*time.Minute, "time between the progress notices of watches that asked for them")
	fs.DurationVar(&o.ProgressInterval, "experimental-watch-progress-notify-interval", 10*time.Minute, "time between the progress notices of watches that asked for them")
	fs.DurationVar(&o.HistoryLength, "history", 0, "how long superseded revisions stay readable; until they are compacted when zero")
	addIgnored(fs)
	return o
}

// addIgnored accepts the flags of etcd that mean nothing to a store of one
// member whose log is always synced.
func addIgnored(fs *pflag.FlagSet) {
	const noEffect = "accepted for etcd's sake; it has no effect here"
	for _, name := range []string{"unsafe-no-fsync", "force-new-cluster", "peer-client-cert-auth", "pre-vote", "strict-reconfig-check", "enable-pprof", "auto-tls", "peer-auto-tls", "experimental-initial-corrupt-check", "enable-grpc-gateway"} {
		fs.Bool(name, false, noEffect)
	}
	for _, name := range []string{"listen-peer-urls", "initial-cluster", "initial-cluster-state", "initial-cluster-token", "listen-metrics-urls", "peer-cert-file", "peer-key-file",
		"peer-trusted-ca-file", "auto-compaction-retention", "auto-compaction-mode", "log-level", "logger", "log-outputs", "wal-dir", "quota-backend-bytes", "snapshot-count",
		"heartbeat-interval", "election-timeout", "max-snapshots", "max-wals", "cors", "host-whitelist", "metrics", "config-file", "cipher-suites", "tls-min-version",
		"feature-gates", "backend-batch-interval", "backend-batch-limit", "grpc-keepalive-min-time", "grpc-keepalive-interval", "grpc-keepalive-timeout"} {
		fs.String(name, "", noEffect)
	}
}

// Run serves until ctx ends.
func Run(ctx context.Context, o *Options, log *slog.Logger) error {
	dir := o.DataDir
	if dir == "" {
		dir = o.Name + ".etcd"
	}
	secure, err := o.tls()
	if err != nil {
		return err
	}
	listeners, err := o.listen(secure)
	if err != nil {
		return err
	}
	history := o.HistoryLength
	if history == 0 {
		history = -1
	}
	s, err := pebble.Open(pebble.Config{Dir: filepath.Join(dir, "store"), Logger: log, History: history})
	if err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	advertised := o.AdvertiseClientURLs
	if len(advertised) == 0 {
		advertised = o.ListenClientURLs
	}
	merged := newMerged(listeners)
	server := etcdserver.New(etcdserver.Config{
		Store: s, Listener: merged, TLS: secure, Name: o.Name, ClientURLs: advertised, PeerURLs: o.AdvertisePeerURLs,
		MaxTxnOps: o.MaxTxnOps, MaxRequestBytes: o.MaxRequestBytes, ProgressInterval: o.ProgressInterval, Logger: log,
	})
	group := lifecycle.New(ctx, log)
	group.Go("etcd", server.Run)
	group.Go("listeners", merged.run)
	log.Info("ready to serve client requests", "addresses", o.ListenClientURLs)
	return errors.Join(group.Wait(), s.Close())
}

// tls is how the server shows itself, nil for plain connections.
func (o *Options) tls() (*tls.Config, error) {
	if o.CertFile == "" && o.KeyFile == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("--cert-file: %w", err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if o.TrustedCA == "" {
		if o.ClientCertAuth {
			return nil, errors.New("--client-cert-auth needs --trusted-ca-file")
		}
		return c, nil
	}
	data, err := os.ReadFile(o.TrustedCA)
	if err != nil {
		return nil, fmt.Errorf("--trusted-ca-file: %w", err)
	}
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("--trusted-ca-file: there is no certificate in %s", o.TrustedCA)
	}
	c.ClientAuth = tls.VerifyClientCertIfGiven
	if o.ClientCertAuth {
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}

func (o *Options) listen(secure *tls.Config) ([]net.Listener, error) {
	var all []net.Listener
	for _, text := range o.ListenClientURLs {
		u, err := url.Parse(strings.TrimSpace(text))
		if err == nil && u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "unix" {
			err = fmt.Errorf("the scheme must be http, https or unix: %s", text)
		}
		if err == nil && u.Scheme == "https" && secure == nil {
			err = fmt.Errorf("%s needs --cert-file and --key-file", text)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--listen-client-urls: %w", err), closeAll(all))
		}
		network, address := "tcp", u.Host
		if u.Scheme == "unix" {
			network, address = "unix", u.Host+u.Path
		}
		l, err := net.Listen(network, address)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--listen-client-urls: %w", err), closeAll(all))
		}
		all = append(all, l)
	}
	if len(all) == 0 {
		return nil, errors.New("--listen-client-urls names no address")
	}
	return all, nil
}

func closeAll(all []net.Listener) error {
	var errs []error
	for _, l := range all {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
