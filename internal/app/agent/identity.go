// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/transport"
	"k8s.io/client-go/util/connrotation"

	"kaji/internal/app/kubeconfig"
	"kaji/internal/client"
	"kaji/internal/pki"
)

const (
	// firstRetry and lastRetry bound how long a renewal that failed waits.
	firstRetry = 2 * time.Second
	lastRetry  = 5 * time.Minute
	// renewalPatience is how long one request waits for an answer.
	renewalPatience = 15 * time.Minute
)

// identity is the node's client certificate. Connections are made with the
// newest; it is renewed, and kept in a kubeconfig, while the node runs.
type identity struct {
	path     string
	nodeName string
	log      *slog.Logger
	current  atomic.Pointer[tls.Certificate]
	conns    *connrotation.Dialer
}

// newIdentity takes over the certificate of a kubeconfig.
func newIdentity(path string, config *rest.Config, nodeName string, log *slog.Logger) (*identity, error) {
	i := &identity{path: path, nodeName: nodeName, log: log}
	i.conns = connrotation.NewDialer((&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext)
	return i, i.take(pki.Pair{Cert: config.CertData, Key: config.KeyData})
}

// take makes a certificate the one that connections are made with.
func (i *identity) take(pair pki.Pair) error {
	parsed, err := pair.TLS()
	if err != nil {
		return err
	}
	if parsed.Leaf == nil {
		if parsed.Leaf, err = x509.ParseCertificate(parsed.Certificate[0]); err != nil {
			return err
		}
	}
	if want := "system:node:" + i.nodeName; parsed.Leaf.Subject.CommonName != want {
		return fmt.Errorf("the certificate is of %q, not of %q", parsed.Leaf.Subject.CommonName, want)
	}
	i.current.Store(&parsed)
	return nil
}

// ended says whether the certificate is of no use any more.
func (i *identity) ended() bool { return time.Now().After(i.current.Load().Leaf.NotAfter) }

// config returns how to reach the server as this identity.
func (i *identity) config(from *rest.Config) (*rest.Config, error) {
	plain := rest.AnonymousClientConfig(from)
	t, err := plain.TransportConfig()
	if err != nil {
		return nil, err
	}
	t.TLS.GetCertHolder = &transport.GetCertHolder{GetCert: func() (*tls.Certificate, error) { return i.current.Load(), nil }}
	t.DialHolder = &transport.DialHolder{Dial: i.conns.DialContext}
	trip, err := transport.New(t)
	if err != nil {
		return nil, err
	}
	return &rest.Config{Host: from.Host, APIPath: from.APIPath, QPS: from.QPS, UserAgent: from.UserAgent, Transport: trip}, nil
}

// run renews the certificate before it ends, until ctx ends.
func (i *identity) run(ctx context.Context, api client.Interface) error {
	from, retry := i.current.Load().Leaf.NotBefore, firstRetry
	wait := time.Until(renewal(from, i.current.Load().Leaf.NotAfter))
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		switch err := i.renew(ctx, api); {
		case err == nil:
			retry = firstRetry
			// Certificates are dated back; what is left of this one counts.
			wait = time.Until(renewal(time.Now(), i.current.Load().Leaf.NotAfter))
		case ctx.Err() != nil:
			return nil
		default:
			i.log.Error("the node's certificate is not renewed, this is tried again", "ends", i.current.Load().Leaf.NotAfter, "err", err, "after", retry)
			wait, retry = retry, min(2*retry, lastRetry)
		}
	}
}

// renewal is when a certificate that is good from one time to another is
// renewed: somewhere between seven and nine tenths of its life, so that many
// nodes do not come at once.
func renewal(from, to time.Time) time.Time {
	return from.Add(time.Duration(float64(to.Sub(from)) * (0.7 + 0.2*rand.Float64())))
}

// renew gets a new certificate, keeps it and lets all connections be made anew.
func (i *identity) renew(ctx context.Context, api client.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, renewalPatience)
	defer cancel()
	pair, err := request(ctx, api, i.nodeName, i.log)
	if err != nil {
		return err
	}
	config, err := clientcmd.LoadFromFile(i.path)
	if err != nil {
		return err
	}
	user := config.AuthInfos[config.Contexts[config.CurrentContext].AuthInfo]
	user.ClientCertificateData, user.ClientKeyData = pair.Cert, pair.Key
	if err := errors.Join(i.take(pair), kubeconfig.Write(i.path, config)); err != nil {
		return err
	}
	i.conns.CloseAll()
	i.log.Info("the node's certificate was renewed", "ends", i.current.Load().Leaf.NotAfter)
	return nil
}
